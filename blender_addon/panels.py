# SPDX-License-Identifier: GPL-3.0-or-later
"""The tab "GSV3D" in the 3D view's sidebar and in the Image Editor's. Drawing only reads."""

from __future__ import annotations

from typing import Any

import bpy

from . import job_panel, previews, session, splat_view
from .backend_panel import draw_status
from .image_empties import selected_image_empties
from .importers import scene
from .jobs import JobState
from .layouts import CATEGORY, Sidebar, Working, draw_problem, draw_words
from .model_panel import draw_choice
from .operators import cutout, sources
from .operators.imagine import text_problem
from .operators.keep import is_result
from .problems import Problem
from .protocol import protocol_problem
from .translations import interface, sentence


class GSV3D_PT_generate(Sidebar, bpy.types.Panel):
    """Picture, cut-out, the settings that most need, Generate."""

    bl_idname = "GSV3D_PT_generate"
    bl_label = "Image to 3D"

    def draw_header_preset(self, _context: bpy.types.Context) -> None:
        self.layout.operator("gsv3d.open_manual", text="", icon="HELP", emboss=False)

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        if _cannot_work(layout):
            return
        settings = context.scene.gsv3d
        layout.row().prop(settings, "source", expand=True)
        if settings.source == "SELECTED":
            empties = selected_image_empties(context)
            if len(empties) > 1:
                text = interface("{count} image empties selected", count=len(empties))
                layout.label(text=text, icon="IMAGE_DATA", translate=False)
            elif empties:
                text = sources.title_of(empties[0].data)
                layout.label(text=text, icon="IMAGE_DATA", translate=False)
            else:
                draw_words(
                    layout,
                    context,
                    "Select an image empty: drag a picture into the view, "
                    "or Add > Image > Reference.",
                    "INFO",
                )
        elif settings.source == "IMAGE":
            layout.template_ID(settings, "image", open="image.open")
        elif settings.source == "WORDS":
            _imagine(layout, context)
            layout.template_ID_preview(settings, "imagined", rows=3, cols=4)
        else:
            layout.prop(settings, "filepath", text="")
        _cut_out(layout, context, "SETTINGS")
        _settings(layout, settings, in_scene=settings.source == "SELECTED")
        _generate(layout, "SETTINGS")
        _progress(layout, context)
        if is_result(context.object) and scene.has_variants(context.object, context.scene):
            layout.operator("gsv3d.keep", text="Keep This One", icon="PINNED")
        shading = context.space_data.shading
        if shading.type == "SOLID" and shading.color_type != "TEXTURE" and len(session.get().book):
            text = "Show Textures in This View"
            layout.operator("gsv3d.solid_colors", text=text, icon="TEXTURE").of = "MESH"


class _Advanced(Working):
    """Settings that few need."""

    layout: Any
    bl_label = "Advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        settings = context.scene.gsv3d
        column = _split(self.layout)
        row = column.row(align=True)
        row.prop(settings, "seed")
        row.prop(settings, "use_random_seed", text="", icon="FILE_REFRESH")
        column.prop(settings, "steps")
        row = column.row(align=True)
        angle = row.row(align=True)
        angle.active = not settings.auto_elevation
        angle.prop(settings, "elevation")
        row.prop(settings, "auto_elevation", text="", icon="AUTO")
        column.prop(settings, "mirror")
        if settings.mirror == "PLANE":
            column.prop(settings, "plane")
        column.prop(settings, "orbit")
        column.prop(settings, "frames")
        column.prop(settings, "texture_size")


class GSV3D_PT_advanced(_Advanced, Sidebar, bpy.types.Panel):
    """Show the advanced settings in the 3D view."""

    bl_idname = "GSV3D_PT_advanced"
    bl_parent_id = "GSV3D_PT_generate"


class GSV3D_PT_batch(Working, Sidebar, bpy.types.Panel):
    """Many pictures at once."""

    bl_idname = "GSV3D_PT_batch"
    bl_label = "Batch"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        settings = context.scene.gsv3d
        layout.row().prop(settings, "batch_source", expand=True)
        text = "Generate Batch"
        if settings.batch_source == "FOLDER":
            layout.prop(settings, "folder", text="")
            layout.prop(settings, "skip_done")
        else:
            count = len(selected_image_empties(context))
            selected = interface("{count} image empties selected", count=count)
            layout.label(text=selected, icon="EMPTY_DATA", translate=False)
            text = interface("Generate Batch ({count})", count=count) if count else text
        row = layout.row()
        row.scale_y = 1.3
        row.operator("gsv3d.batch", text=text, icon="FILE_REFRESH").source = "SETTINGS"


class GSV3D_PT_results(Sidebar, bpy.types.Panel):
    """How results are looked at."""

    bl_idname = "GSV3D_PT_results"
    bl_label = "Results"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        column = _split(layout)
        column.prop(context.scene.gsv3d, "again")
        column.prop(context.scene.gsv3d, "after_mesh")
        if splat_view.possible():
            layout.prop(context.scene.gsv3d, "splats_in_view")
        layout.label(text="Show all results:")
        row = layout.row(align=True)
        row.operator("gsv3d.show_results", text="Meshes").what = "MESH"
        row.operator("gsv3d.show_results", text="Splats").what = "GAUSSIANS"
        row.operator("gsv3d.show_results", text="Both").what = "BOTH"
        layout.label(text="Colors in Solid view:")
        row = layout.row(align=True)
        row.operator("gsv3d.solid_colors", text="Meshes").of = "MESH"
        row.operator("gsv3d.solid_colors", text="Splats").of = "GAUSSIANS"


class GSV3D_PT_backend(Working, Sidebar, bpy.types.Panel):
    """The backend: status, start, stop."""

    bl_idname = "GSV3D_PT_backend"
    bl_label = "Backend"

    def draw(self, context: bpy.types.Context) -> None:
        draw_status(self.layout, context)


class GSV3D_PT_image(bpy.types.Panel):
    """The same for the picture in an Image Editor."""

    bl_idname = "GSV3D_PT_image"
    bl_label = "Image to 3D"
    bl_space_type = "IMAGE_EDITOR"
    bl_region_type = "UI"
    bl_category = CATEGORY

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        if _cannot_work(layout):
            return
        image = context.space_data.image
        if text_problem() is None:  # nothing to say to people who do not want it
            _imagine(layout.box(), context)
        title = sources.title_of(image) if image else interface("No picture is open")
        layout.label(text=title, icon="IMAGE_DATA", translate=False)
        _cut_out(layout, context, "EDITOR")
        _settings(layout, context.scene.gsv3d, in_scene=False)
        _generate(layout, "EDITOR")
        _progress(layout, context)
        draw_status(layout, context)


class GSV3D_PT_image_advanced(_Advanced, bpy.types.Panel):
    """Show the advanced settings in the Image Editor."""

    bl_idname = "GSV3D_PT_image_advanced"
    bl_parent_id = "GSV3D_PT_image"
    bl_space_type = "IMAGE_EDITOR"
    bl_region_type = "UI"
    bl_category = CATEGORY


def _cannot_work(layout: Any) -> bool:
    problem = protocol_problem()
    if problem is None:
        return False
    draw_words(layout, bpy.context, problem.what, "ERROR")
    draw_words(layout, bpy.context, problem.hint)
    return True


def _imagine(layout: Any, context: bpy.types.Context) -> None:
    """Draw the field of words, and the button that makes a picture of them."""
    settings = context.scene.gsv3d
    layout.prop(settings, "prompt", text="")
    row = layout.row(align=True)
    row.prop(settings, "prompt_seed")
    row.operator("gsv3d.imagine", text="Imagine", icon="BRUSH_DATA")
    problem = text_problem()
    if problem is not None:
        draw_problem(layout, context, problem)


def _settings(layout: Any, settings: Any, in_scene: bool) -> None:
    column = _split(layout)
    draw_choice(column, bpy.context, settings)
    row = column.row(align=True)
    row.prop(settings, "quality")
    row.prop(settings, "refine", text="", icon="MODIFIER")
    column.prop(settings, "faces")
    if in_scene:
        column.prop(settings, "size")
    if not in_scene or settings.size == "HEIGHT":
        column.prop(settings, "height")
    column.prop(settings, "seeds")


def _split(layout: Any) -> Any:
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    return column


def _generate(layout: Any, source: str) -> None:
    row = layout.row()
    row.scale_y = 1.5
    row.operator("gsv3d.generate", text="Generate", icon="SHADERFX").source = source
    row.operator("gsv3d.generate_clipboard", text="", icon="PASTEDOWN")


def _cut_out(layout: Any, context: bpy.types.Context, source: str) -> None:
    """Draw the cut-out with its buttons, or the button that asks for it."""
    cut = cutout.shown(context, source)
    if cut is None:
        press = layout.operator("gsv3d.cutout", text="Show Cut-out", icon="IMAGE_ALPHA")
        press.source = source
        return
    box = layout.box()
    row = box.row(align=True)
    words = row.column()
    icon = "ERROR" if cut.unsure or cut.problem else "IMAGE_ALPHA"
    draw_words(words, context, str(cut.problem or cut.describe()), icon)
    if cut.chosen:
        draw_words(words, context, interface("Cut out of {name}", name=cut.request.filename))
    row.operator("gsv3d.cutout", text="", icon="FILE_REFRESH").source = source
    row.operator("gsv3d.forget_cutout", text="", icon="X").source = source
    picture = previews.icon_of(cut.id)
    if picture:
        box.template_icon(icon_value=picture, scale=8.0)
    box.operator("gsv3d.another_cutout", text="Another Cut-out").source = source


def _progress(layout: Any, context: bpy.types.Context) -> None:
    """Draw the running job's phase, ETA, views and Cancel, or the newest job's problem."""
    current = session.get()
    if current.delivery.holdup:
        reason = sentence(current.delivery.holdup)
        draw_words(layout, context, interface("A result is {reason}.", reason=reason), "INFO")
    job = current.book.current()
    if job is None:
        newest = list(current.book)[-1:]
        if newest and newest[0].state is JobState.FAILED:
            draw_problem(layout, context, Problem(newest[0].what, newest[0].hint))
        return
    row = layout.row(align=True)
    row.progress(factor=job.fraction, text=sentence(current.jobs.describe(job)))
    row.operator("gsv3d.cancel", text="", icon="X").job_id = job.id
    layout.label(text=job.name, translate=False)
    if job.target.batch:
        layout.label(text=sentence(current.book.batch_summary(job.target.batch)))
    icon = previews.icon_of(job.id)
    if icon:
        layout.template_icon(icon_value=icon, scale=8.0)


CLASSES = (
    GSV3D_PT_generate,
    GSV3D_PT_advanced,
    *job_panel.CLASSES,
    GSV3D_PT_batch,
    GSV3D_PT_results,
    GSV3D_PT_backend,
    GSV3D_PT_image,
    GSV3D_PT_image_advanced,
)
