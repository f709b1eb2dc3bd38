# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw Gaussians with Blender's ``gpu`` module, as splats into a picture and that into the view.

The splats are 3D Gaussian Splatting's (Kerbl et al. 2023, equation 5), drawn as the backend's own
renderer draws them: 0.3 square pixels are added to the projected variances, alpha is at most 0.999
and dropped below 1/255, colors are blended as trained, in sRGB. The view blends in linear light and
eight bits, so splats go into a picture of their own first. Their depths are averaged as their
colors are, and a pixel of the picture is hidden where the scene is nearer than its average depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from . import splats

_SPLAT_VERTEX = """
vec3 color_along(vec3 way, ivec2 at, int coefficients)
{
  vec3 c = 0.28209479177387814 * texelFetch(colors, at, 0).rgb;
  if (coefficients > 1) {
    float x = way.x, y = way.y, z = way.z;
    c += 0.4886025119029199 * (-y * texelFetch(colors, at + ivec2(1, 0), 0).rgb
                               + z * texelFetch(colors, at + ivec2(2, 0), 0).rgb
                               - x * texelFetch(colors, at + ivec2(3, 0), 0).rgb);
    if (coefficients > 4) {
      float xx = x * x, yy = y * y, zz = z * z;
      c += 1.0925484305920792 * (x * y * texelFetch(colors, at + ivec2(4, 0), 0).rgb
                                 - y * z * texelFetch(colors, at + ivec2(5, 0), 0).rgb
                                 - x * z * texelFetch(colors, at + ivec2(7, 0), 0).rgb);
      c += 0.31539156525252005 * (2.0 * zz - xx - yy)
           * texelFetch(colors, at + ivec2(6, 0), 0).rgb;
      c += 0.5462742152960396 * (xx - yy) * texelFetch(colors, at + ivec2(8, 0), 0).rgb;
      if (coefficients > 9) {
        c -= 0.5900435899266435 * (y * (3.0 * xx - yy) * texelFetch(colors, at + ivec2(9, 0), 0).rgb
                                   + x * (xx - 3.0 * yy)
                                     * texelFetch(colors, at + ivec2(15, 0), 0).rgb);
        c += 2.890611442640554 * x * y * z * texelFetch(colors, at + ivec2(10, 0), 0).rgb;
        c -= 0.4570457994644658 * (4.0 * zz - xx - yy)
             * (y * texelFetch(colors, at + ivec2(11, 0), 0).rgb
                + x * texelFetch(colors, at + ivec2(13, 0), 0).rgb);
        c += 0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy)
             * texelFetch(colors, at + ivec2(12, 0), 0).rgb;
        c += 1.445305721320277 * z * (xx - yy) * texelFetch(colors, at + ivec2(14, 0), 0).rgb;
      }
    }
  }
  return max(c + 0.5, vec3(0.0));
}

void main()
{
  int place = int(gl_InstanceID);
  int index = int(texelFetch(order, ivec2(place % PER_ROW, place / PER_ROW), 0).r);
  ivec2 cell = ivec2(index % PER_ROW, index / PER_ROW);
  ivec2 at = ivec2(cell.x * 3, cell.y);
  vec4 first = texelFetch(shapes, at, 0);
  vec4 second = texelFetch(shapes, at + ivec2(1, 0), 0);
  vec4 third = texelFetch(shapes, at + ivec2(2, 0), 0);
  vec3 middle = first.xyz;
  float opacity = first.w;
  mat3 covariance = mat3(second.x, second.y, second.z,
                         second.y, second.w, third.x,
                         second.z, third.x, third.y);

  /* The camera looks along -Z; lens holds the slopes of the projection, bend its shifts. */
  vec4 seen = to_camera * vec4(middle, 1.0);
  float away = -seen.z;
  bool perspective = depth_of.z > 0.5;
  int coefficients = int(depth_of.w);
  vec2 focal = 0.5 * lens.xy * size;
  vec2 slope = perspective ? seen.xy / away : seen.xy;
  vec2 center = lens.xy * slope + (perspective ? -lens.zw : lens.zw);
  vec3 row_x = vec3(focal.x, 0.0, 0.0);
  vec3 row_y = vec3(0.0, focal.y, 0.0);
  if (perspective) {
    /* As far outside the picture as 15 % of it, the map is taken to be as at that place. */
    vec2 low = (-1.3 + lens.zw) / lens.xy, high = (1.3 + lens.zw) / lens.xy;
    vec2 near_slope = clamp(slope, low, high);
    row_x = focal.x / away * vec3(1.0, 0.0, near_slope.x);
    row_y = focal.y / away * vec3(0.0, 1.0, near_slope.y);
  }
  mat3 turn = mat3(to_camera);
  mat3 turned = turn * covariance * transpose(turn);
  float xx = dot(row_x, turned * row_x) + 0.3;
  float xy = dot(row_x, turned * row_y);
  float yy = dot(row_y, turned * row_y) + 0.3;
  float determinant = xx * yy - xy * xy;

  color = vec4(0.0);
  distance_of = 0.0;
  reach = vec2(0.0);
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  if (opacity * 255.0 < 1.0 || determinant <= 0.0 || (perspective && away < 1e-6)) {
    return;
  }
  float spread = length(vec2(0.5 * (xx - yy), xy));
  float major = 0.5 * (xx + yy) + spread;
  float minor = determinant / major;
  vec2 along = xx >= yy ? vec2(major - yy, xy) : vec2(xy, major - xx);
  along = spread > 1e-9 * major ? normalize(along) : vec2(1.0, 0.0);
  reach = corner * sqrt(2.0 * log(255.0 * opacity));
  vec2 offset = reach.x * sqrt(major) * along + reach.y * sqrt(minor) * vec2(-along.y, along.x);
  float z = (depth_of.x * seen.z + depth_of.y) / (perspective ? away : 1.0);
  gl_Position = vec4(center + 2.0 * offset / size, z, 1.0);
  vec3 way = normalize(perspective ? middle - eye.xyz : eye.xyz);
  color = vec4(color_along(way, ivec2(cell.x * coefficients, cell.y), coefficients), opacity);
  distance_of = away;
}
"""

_SPLAT_FRAGMENT = """
void main()
{
  float alpha = min(0.999, color.a * exp(-0.5 * dot(reach, reach)));
  if (alpha < 1.0 / 255.0) {
    discard;
  }
  picture = vec4(color.rgb * alpha, alpha);
  depth = vec4(distance_of * alpha, 0.0, 0.0, alpha);
}
"""

_VIEW_VERTEX = """
void main()
{
  gl_Position = vec4(corner, 0.0, 1.0);
  place = 0.5 * corner + 0.5;
}
"""

_VIEW_FRAGMENT = """
void main()
{
  vec4 color = texture(picture, place);
  if (color.a < 1.0 / 255.0) {
    discard;
  }
  float away = texture(depth, place).r / color.a;
  float z = (depth_of.y - depth_of.x * away) / (depth_of.z > 0.5 ? away : 1.0);
  gl_FragDepth = clamp(0.5 * z + 0.5, 0.0, 1.0);
  /* Blender lays what is drawn here over the scene in light of this exponent, not of sRGB's. */
  result = vec4(color.a * pow(min(color.rgb / color.a, 1.0), vec3(2.2)), color.a);
}
"""


_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0))


def texture(values: np.ndarray, kind: str) -> Any:
    """Return floats (rows, columns, channels) as a texture on the card, of the format ``kind``."""
    rows, columns, _ = values.shape
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return gpu.types.GPUTexture(
        (columns, rows), format=kind, data=gpu.types.Buffer("FLOAT", flat.size, flat)
    )


class Cloud:
    """Gaussians on the card, in their object's coordinates."""

    def __init__(
        self,
        means: np.ndarray,
        quats: np.ndarray,
        scales: np.ndarray,
        opacities: np.ndarray,
        sh: np.ndarray,
    ) -> None:
        self.means = means
        self.middle = np.append(means.mean(axis=0), 1.0)
        self.coefficients = sh.shape[1]
        self.shapes = texture(splats.shape_texels(means, quats, scales, opacities), "RGBA32F")
        self.colors = texture(splats.color_texels(sh), "RGBA16F")

    def order(self, away: np.ndarray) -> Any:
        """Return the texture of the order from far to near along ``away``, object coordinates."""
        order = splats.far_to_near(self.means, away)
        return texture(splats.in_rows(order[:, None, None]), "R32F")


class Picture:
    """The picture of splats: colors times alpha, alpha, and depths times alpha."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.colors = gpu.types.GPUTexture(self.size, format="RGBA16F")
        self.depths = gpu.types.GPUTexture(self.size, format="R32F")
        self.buffer = gpu.types.GPUFrameBuffer(color_slots=(self.colors, self.depths))
        self.holds: object = None
        """What was drawn; whoever draws compares and sets it."""


def viewport_size() -> tuple[int, int]:
    """Return width and height of what is being drawn into, in pixels."""
    _, _, width, height = gpu.state.viewport_get()
    return width, height


class Shaders:
    """The two shaders and the quad that both draw. Needs a context for drawing."""

    def __init__(self) -> None:
        self._splat = _splat_shader()
        self._view = _view_shader()
        self._quad = batch_for_shader(self._splat, "TRI_STRIP", {"corner": _CORNERS})
        self._screen = batch_for_shader(self._view, "TRI_STRIP", {"corner": _CORNERS})

    def clear(self, picture: Picture) -> None:
        """Empty a picture."""
        with picture.buffer.bind():
            picture.buffer.clear(color=(0.0, 0.0, 0.0, 0.0))

    def draw(
        self, picture: Picture, cloud: Cloud, order: Any, to_camera: np.ndarray, lens: np.ndarray
    ) -> None:
        """Draw a cloud over what the picture holds.

        Args:
            picture, cloud: to draw into, and what.
            order: as returned by `Cloud.order`.
            to_camera: (4, 4) from the object to a camera that looks along -Z.
            lens: (4, 4) projection of that camera, as OpenGL has it.
        """
        shader = self._splat
        inverse = np.linalg.inv(to_camera)
        eye = inverse[:3, 3] if _is_perspective(lens) else -inverse[:3, 2]
        with picture.buffer.bind(), _blending("NONE"):
            shader.bind()
            shader.uniform_sampler("shapes", cloud.shapes)
            shader.uniform_sampler("colors", cloud.colors)
            shader.uniform_sampler("order", order)
            shader.uniform_float("to_camera", to_camera.T.ravel().tolist())
            shader.uniform_float("lens", _slopes(lens))
            shader.uniform_float("depth_of", [*_depths(lens), cloud.coefficients])
            shader.uniform_float("eye", [*eye.tolist(), 0.0])
            shader.uniform_float("size", picture.size)
            self._quad.draw_instanced(shader, instance_count=len(cloud.means))

    def show(self, picture: Picture, lens: np.ndarray) -> None:
        """Draw a picture over the framebuffer that is bound, where its depth does not hide it."""
        shader = self._view
        with _blending("LESS_EQUAL"):
            shader.bind()
            shader.uniform_sampler("picture", picture.colors)
            shader.uniform_sampler("depth", picture.depths)
            shader.uniform_float("depth_of", _depths(lens))
            self._screen.draw(shader)


@contextmanager
def _blending(depth_test: str) -> Iterator[None]:
    """Blend premultiplied colors and write no depth; restore the former state afterward."""
    state = gpu.state
    before = state.blend_get(), state.depth_test_get(), state.depth_mask_get()
    state.blend_set("ALPHA_PREMULT")
    state.depth_test_set(depth_test)
    state.depth_mask_set(False)
    try:
        yield
    finally:
        state.blend_set(before[0])
        state.depth_test_set(before[1])
        state.depth_mask_set(before[2])


def _is_perspective(lens: np.ndarray) -> bool:
    return bool(lens[3, 3] == 0.0)


def _slopes(lens: np.ndarray) -> list[float]:
    """Return the x and y slopes of a projection and its shifts, in clip coordinates."""
    column = 2 if _is_perspective(lens) else 3
    return [lens[0, 0], lens[1, 1], lens[0, column], lens[1, column]]


def _depths(lens: np.ndarray) -> list[float]:
    """Return the two numbers that make depths of a camera's z, and 1 for a perspective."""
    return [lens[2, 2], lens[2, 3], float(_is_perspective(lens))]


def _splat_shader() -> Any:
    info = gpu.types.GPUShaderCreateInfo()
    between = gpu.types.GPUStageInterfaceInfo("gsv3d_splat")
    between.smooth("VEC2", "reach")
    between.flat("VEC4", "color")
    between.flat("FLOAT", "distance_of")
    info.define("PER_ROW", str(splats.PER_ROW))
    # 128 bytes are what every card has for these.
    info.push_constant("MAT4", "to_camera")
    info.push_constant("VEC4", "lens")
    info.push_constant("VEC4", "depth_of")
    info.push_constant("VEC4", "eye")
    info.push_constant("VEC2", "size")
    info.sampler(0, "FLOAT_2D", "shapes")
    info.sampler(1, "FLOAT_2D", "colors")
    info.sampler(2, "FLOAT_2D", "order")
    info.vertex_in(0, "VEC2", "corner")
    info.vertex_out(between)
    info.fragment_out(0, "VEC4", "picture")
    info.fragment_out(1, "VEC4", "depth")
    info.vertex_source(_SPLAT_VERTEX)
    info.fragment_source(_SPLAT_FRAGMENT)
    return gpu.shader.create_from_info(info)


def _view_shader() -> Any:
    info = gpu.types.GPUShaderCreateInfo()
    between = gpu.types.GPUStageInterfaceInfo("gsv3d_view")
    between.smooth("VEC2", "place")
    info.push_constant("VEC3", "depth_of")
    info.sampler(0, "FLOAT_2D", "picture")
    info.sampler(1, "FLOAT_2D", "depth")
    info.vertex_in(0, "VEC2", "corner")
    info.vertex_out(between)
    info.fragment_out(0, "VEC4", "result")
    if hasattr(info, "depth_write"):  # Blender 4.4; OpenGL needs no telling
        info.depth_write("ANY")
    info.vertex_source(_VIEW_VERTEX)
    info.fragment_source(_VIEW_FRAGMENT)
    return gpu.shader.create_from_info(info)
