# SPDX-License-Identifier: Apache-2.0
"""Settings of meshing: lengths, shares, tolerances and sizes.

Lengths are above 0, in voxels of the fusion's grid unless their line says otherwise; an extent is
the largest side of the object's box. Shares, coverages and intersections over union are in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshSettings:
    """Choices in making a mesh of Gaussians.

    Views that are fused and baked (``views``):
        voxels: along the object's extent; 16 or more. Memory grows with the cube.
        view_pixels: pixels along a depth map for each of these voxels; at about 1.5 a pixel sees
            one voxel.
        view_distance: least distance of the cameras in world units. Farther than the model's own
            orbit: a weaker perspective looks better into hollows.
        rings: rings of cameras: elevation in degrees, number of views, azimuth of the first in
            degrees. One straight above and one straight below are added.
        hidden_behind: a Gaussian so far behind the visible depth is hidden, in world units.
        max_blur: most that Gaussians are widened by where color is looked up, in extents.

    Fusion (``fusion``):
        truncation: distances are cut here; later the surface may be moved by nearly as much.
        solid_alpha: a pixel covered by more than this shows the object. Below one half: a trained
            decoder hedges, and covers thin parts and rims by less than it should.
        faint_share, faint_densest, faint_alpha: where an object is faint all over, such as a thin
            ring that the decoder could not place, a pixel shows it when it is covered by more than
            ``faint_share`` of what the densest ``faint_densest`` of the pixels are, and by more
            than ``faint_alpha``.

    Level of the surface (``level``):
        field_blur: standard deviation of the field's smoothing.
        level_range, level_step: the first and the last level that are tried, negative inside, and
            the step between two.
        same_level: a level this near to 0 is not told from 0: pixels and the renderer's own blur
            widen silhouettes by as much.

    Probable shape (``shape_prior``):
        prior_range: logits of what is probably solid count no less and no more than these.

    Gaps finer than the grid (``carving``):
        narrow_gap: a gap narrower than this is finer than the grid.
        carved_share, carved_share_near: a picture is carved if its narrow gaps have more than the
            first share of its object's area, and then wherever they have more than the second share
            of the object nearby. Of 40 props none has .02; a palm has .13, a racket's strings .25,
            a bare birch .50. An oak in leaf has .05: carved it has slits in its solid crown, seen
            from the side.
        filled_gap, filled_margin: the mesh fills gaps narrower than this there, and is wider by so
            much.
        alpha_steepness: the alpha passes one half so many times faster than the picture's coverage,
            1 or more: what clips elsewhere, as Blender's Solid view does at .1, then shows nearly
            the same outline.

    Mirrored pictures (``mirror``):
        mirror_reach, mirror_planes: planes are tried to so far from the world's vertical axis in
            world units, and how many.
        mirror_offset_cost: intersection over union that a plane must gain by each world unit that
            it is off the axis: most objects stand in the middle of their picture, and a solid too
            large fits anywhere.
        mirror_agreement: silhouettes with a lower intersection over union show different things:
            the mirrored picture is left out. Low, since it helps most where the solid is wrong.
        placing_pixels, cutting_pixels: side of the outline that places the plane, and of the one
            that cuts the solid.

    Outline of the reference (``outline``):
        outline_pixels: side of the picture as the outline is taken from it: below a voxel each.
        max_finer, fine_voxels, fine_crossings: the volume of a slim object is refined: each voxel
            at most so many times smaller, to so many of them, of which at most so many pairs have
            the surface between them.
        outline_reach: farther from the outline than this, before voxels are refined, nothing is
            changed.
        outline_agreement: silhouettes with a lower intersection over union show different things:
            nothing is changed.
        ray_width: width of the rays that are looked along; each then holds some voxels of every
            depth.
        least_half, most_half: half the thickness of what is put back: voxels at least, world units
            at most.
        miss_evidence: a ray whose nearest miss is below this share of the truncation says where
            something should be.
        miss_weight: weight of the Gaussians' nearest miss against the smoothness of the depth of
            what is put back.
        steepest: largest slope of that depth that its thickness makes up for.
        line_half: half the width of a line in the picture that a surface surely keeps.
        speck: a loose part covers more than this share of the picture's object alone, or it is
            dropped.

    Surface (``surface`` and ``simplify``):
        part_share: a part is kept when its area or volume is at least this share of the largest
            part's.
        smoothing_rounds: rounds of Taubin's smoothing.
        faces_per_part: with fewer faces than this a part is hardly a shape: then rather fewer
            parts.

    Texture (``texture`` and ``reference``):
        depth_tolerance: by how much a point may miss a depth and still be what the view shows, in
            extents: the surface is a compromise of views that disagree.
        views_texture: side in texels of the largest texture that the views are baked into; a larger
            one is enlarged from it, since they hold far less detail. Pictures are baked at the full
            size.
        picture_agreement: outlines with a lower intersection over union show different things: the
            picture is not baked.
        max_stretch, max_shift: how many times larger or smaller the mesh may stand in the picture
            than the object, 1 or more, and how far off its center in parts of the picture.
        facing: cosines of the angle between a surface and the direction to the camera from which
            the picture begins to count, and from which it counts fully: pixels smear over what they
            graze.
        rim: the outermost pixels of the object, in parts of the picture's side, fade: they hold
            background, and there the mesh is least sure to be where the picture says.
        bump: bumps of a rough surface hide what lies so little behind them, in world units; it is
            painted all the same.
    """

    voxels: int = 116
    view_pixels: float = 176 / 116
    view_distance: float = 3.0
    rings: tuple[tuple[float, int, float], ...] = (
        (10.0, 12, 0.0), (-25.0, 8, 22.5), (45.0, 8, 0.0), (75.0, 4, 45.0), (-65.0, 4, 0.0)
    )  # fmt: skip
    hidden_behind: float = 0.06
    max_blur: float = 0.02

    truncation: float = 6.0
    solid_alpha: float = 0.3
    faint_share: float = 0.5
    faint_densest: float = 0.1
    faint_alpha: float = 0.1

    field_blur: float = 1.0
    level_range: tuple[float, float] = (-2.0, 5.0)
    level_step: float = 0.25
    same_level: float = 0.75

    prior_range: tuple[float, float] = (-2.0, 6.0)

    narrow_gap: float = 2.0
    carved_share: float = 0.1
    carved_share_near: float = 0.03
    filled_gap: float = 8.0
    filled_margin: float = 1.0
    alpha_steepness: float = 4.0

    mirror_reach: float = 0.1
    mirror_planes: int = 21
    mirror_offset_cost: float = 0.5
    mirror_agreement: float = 0.4
    placing_pixels: int = 128
    cutting_pixels: int = 256

    outline_pixels: int = 512
    max_finer: float = 3.0
    fine_voxels: int = 6_000_000
    fine_crossings: int = 48_000
    outline_reach: float = 2.0
    outline_agreement: float = 0.05
    ray_width: float = 1.5
    least_half: float = 0.8
    most_half: float = 0.08
    miss_evidence: float = 0.9
    miss_weight: float = 0.6
    steepest: float = 4.0
    line_half: float = 0.65
    speck: float = 0.002

    part_share: float = 0.02
    smoothing_rounds: int = 6
    faces_per_part: int = 24

    depth_tolerance: float = 0.043
    views_texture: int = 2048
    picture_agreement: float = 0.6
    max_stretch: float = 1.35
    max_shift: float = 0.15
    facing: tuple[float, float] = (0.15, 0.45)
    rim: float = 0.015
    bump: float = 0.05
