"""What the workbench refuses, in the words of the engineer at the bench.

Unlike the sentences of the service these may hold paths: they answer a command that was given paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.errors import Refusal


class NoImagesFound(Refusal):
    """The source names no image at all."""

    def __init__(self, source: str, looked_for: str) -> None:
        super().__init__(
            f"No images found in {source}: {looked_for}. Give a folder of images (PNG, JPEG, BMP or TIFF), a folder "
            f"with 'normal/' in it (and 'anomaly/', where anomalous images are wanted too), a quoted glob such as "
            f"'photos/good-*.png', or a manifest (JSON Lines)."
        )


class TooFewImages(Refusal):
    """Fewer different good images than cross-validation needs."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(
            f"{found} different good {'image is' if found == 1 else 'images are'} too few: at least {needed} are "
            f"needed to find a threshold, and 20 to 40 make a model worth using. Take more photographs of good parts."
        )


class ImagesDifferInSize(Refusal):
    """The good images are not of one size."""

    def __init__(self, usual: tuple[int, int], others: Sequence[tuple[Path, tuple[int, int]]]) -> None:
        named = ", ".join(f"{path.name} ({width}x{height})" for path, (width, height) in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        super().__init__(
            f"The images differ in size: most are {usual[0]}x{usual[1]}, but not {named}{more}. "
            f"Remove these, or give --any-size to make a model that takes images of every size."
        )


class ImageSizeNotAllowed(Refusal):
    """An image is smaller or larger than a model may take."""

    def __init__(self, file: Path, width: int, height: int, smallest: int, largest: int) -> None:
        super().__init__(
            f"{file} is {width}x{height}: both sides must be {smallest} to {largest} pixels. Crop or resize the images "
            f"the way the camera application will send them."
        )


class UnreadableImage(Refusal):
    """A file is no image of an allowed format, or a damaged one."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{file} cannot be read as an image: {why}. Replace it or take it out of the source.")


class MaskDiffersInSize(Refusal):
    """A mask is not as large as its image."""

    def __init__(self, mask: Path, mask_size: tuple[int, int], image: Path, image_size: tuple[int, int]) -> None:
        super().__init__(
            f"The mask {mask} is {mask_size[0]}x{mask_size[1]}, but its image {image} is "
            f"{image_size[0]}x{image_size[1]}. Draw the mask on the image as it is, without scaling it."
        )


class BadManifestLine(Refusal):
    """A manifest's line does not say what it has to."""

    def __init__(self, file: Path, line: int, why: str) -> None:
        super().__init__(f"{file}, line {line}: {why}.")


class ImageNotInspected(Refusal):
    """One image gets no answer; the reason is the service's own sentence."""


class NoLabelledImages(Refusal):
    """Nobody has said what is on the images."""

    def __init__(self, images: int) -> None:
        super().__init__(
            f"None of the {images} images is labelled, so there is nothing to compare answers with. Put them into "
            f"'normal/' and 'anomaly/', begin their file names with these words, or give a manifest whose class-name "
            f"is exactly 'normal' or 'anomaly'. (`edge-agent detect` inspects images without labels.)"
        )


class NotYetLabelled(Refusal):
    """A manifest tells what a model answered, and no truth."""

    def __init__(self, pictures: int) -> None:
        super().__init__(
            f"None of the {pictures} pictures is labelled yet: keys that end in '-detected' tell what a model "
            f"answered, which is no label. Look at the pictures and copy each into a folder 'normal/' or 'anomaly/', "
            f"and give the folder that holds both; or let a tool that writes Ground Truth manifests add labels, whose "
            f"class-name is exactly 'normal' or 'anomaly'. (`edge-agent replay` inspects them again without labels.)"
        )


class NoCapturedPictures(Refusal):
    """The source holds nothing that the camera client has kept."""

    def __init__(self, source: str, why: str) -> None:
        super().__init__(
            f"No captured pictures in {source}: {why}. Give the folder that the camera client captures into (its "
            f"setting 'capture.folder'), or the capture.manifest in it. The camera client keeps what the model "
            f"was not sure of, and one in 'capture.one_in' (100) of the others: 1 keeps all."
        )


class NotAsCaptured(Refusal):
    """A picture, or its mask, has another size than when it was captured."""

    def __init__(self, file: Path, size: tuple[int, int], captured: tuple[int, int]) -> None:
        super().__init__(
            f"{file} is {size[0]}x{size[1]}, but was captured as {captured[0]}x{captured[1]}. Put back the file as it "
            f"was: what was scaled or cropped cannot be compared."
        )


class NothingReplayed(Refusal):
    """None of the captured pictures got an answer."""

    def __init__(self, pictures: int, first_reason: str) -> None:
        super().__init__(f"None of the {pictures} captured pictures could be replayed. The first one: {first_reason}")


class NothingInspected(Refusal):
    """The model answered none of the images."""

    def __init__(self, images: int, first_reason: str) -> None:
        super().__init__(
            f"None of the {images} labelled images got an answer. The first one: {first_reason} "
            f"Give images as the model's camera makes them, or a package that takes any size."
        )


class NoSuchPackage(Refusal):
    """There is nothing where a package should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"There is no package {path}. Give the folder or ZIP of one, or, with --agent, the name of a component."
        )


class AgentRefuses(Refusal):
    """An agent that does not answer, or not what was asked."""

    def __init__(self, socket: str, code: str, details: str, what_to_do: str) -> None:
        super().__init__(f"The agent at {socket} answers {code}: {details.rstrip('.')}. {what_to_do.rstrip('.')}.")


class NoSharedMemory(Refusal):
    """Shared memory cannot be had."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Shared memory (/dev/shm) cannot be used: {why}. Free some, or leave out --shared-memory.")


class ModelCannotStart(Refusal):
    """An agent's model did not come to RUNNING."""

    def __init__(self, component: str, status: str, message: str) -> None:
        super().__init__(
            f"{component} is {status}, not RUNNING: {message.rstrip('.') or 'the agent does not say why'}. "
            f"Mend that and try again; `edge-agent verify PACKAGE` tries the same without an agent."
        )


class SettingOutOfRange(Refusal):
    """An option's value is outside what is allowed."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(f"{option} is {value}, but must be {allowed}.")


class BadSource(Refusal):
    """A model that cannot be packaged: why, and what to do."""

    def __init__(self, source: Path, why: str, what_to_do: str) -> None:
        super().__init__(f"{source} cannot be packaged: {why}. {what_to_do[:1].upper()}{what_to_do[1:]}.")


class BadRegion(Refusal):
    """A place in the image that cannot be used: which, and why."""

    def __init__(self, given: str, why: str) -> None:
        super().__init__(f"{given} is no part of the image that can be inspected or ignored: {why}.")


class BadSelfTest(Refusal):
    """The images given for the self-test cannot be it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"--self-test: {why}.")


class OutputExists(Refusal):
    """A package is already there; the same name and version is never overwritten."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} already exists, and a package is never overwritten. "
            f"Choose another --version or another folder, or move this one away."
        )


class OutputNotWritable(Refusal):
    """What was made cannot be written where it should be; `option` says where that is."""

    def __init__(self, path: Path, why: str, option: str = "--output") -> None:
        super().__init__(f"{path} cannot be written: {why}. Choose another {option}.")


class EngineNotKept(Refusal):
    """An engine was built, and the engine cache did not take it."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"The engine could not be kept in {folder} (a line above says why). Mend that, or name another folder as "
            "--engine-cache."
        )


class EngineNotPacked(Refusal):
    """No engine of this device can be put into a package."""

    def __init__(self, why: str, what_to_do: str) -> None:
        super().__init__(f"No engine of this device can be put into the package: {why}. {what_to_do}.")


class ModelBlindToDefects(Refusal):
    """Not even a large drawn defect reaches the threshold."""

    def __init__(self) -> None:
        super().__init__(
            "The fitted model does not find a large defect drawn onto a good image, so it would find no real one. "
            "The good images differ too much from each other: photograph one kind of part, in one light, in focus."
        )


class MissingWorkbench(Refusal):
    """The workbench's libraries are not installed."""

    def __init__(self, library: str) -> None:
        super().__init__(
            f"This command needs '{library}', which a device does not. "
            f"Install it with: pip install 'vision-edge-agent[cpu,workbench]'"
        )


class NotADemoFolder(Refusal):
    """The demo's output folder holds something else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} holds something that no demo wrote, and is not cleared. Choose another --output.")


class PicturesInOutput(Refusal):
    """The demo would clear the folder that holds the pictures."""

    def __init__(self, images: Path, output: Path) -> None:
        super().__init__(f"{images} lies in {output}, which the demo clears. Choose another --output.")


class DemoStepFailed(Refusal):
    """A step of the demo ended with an error."""

    def __init__(self, command: str) -> None:
        super().__init__(f"This step failed, and has said why above: {command}")


class WheelsNotFound(Refusal):
    """pip finds no set of packages for a device."""

    def __init__(self, platform: str, why: str) -> None:
        super().__init__(
            f"There is no set of wheels for {platform}: {why}. Is the package index reachable from here? "
            "Platforms are chosen with --bundle-wheels, for what has no wheel choose another --runtime."
        )


class BadDeployment(Refusal):
    """A deployment document that cannot be written."""

    def __init__(self, why: str) -> None:
        super().__init__(f"No deployment is written: {why}.")


class NoSourceTree(Refusal):
    """The agent's wheel cannot be built."""

    def __init__(self, source: Path, why: str = "") -> None:
        reason = f": {why}" if why else ""
        super().__init__(
            f"The agent's wheel cannot be built from {source.resolve()}{reason}. Run this in a checkout of the "
            "project, name one with --source, or give a wheel with --wheel."
        )


class TooMuchForGdk(Refusal):
    """gdk knows one recipe by its name, and a second would take its place."""

    def __init__(self) -> None:
        super().__init__(
            "gdk builds one component at a time. Leave out --gdk, or build a client by itself with: "
            "edge-agent greengrass client FOLDER --gdk"
        )


class NoClientExample(Refusal):
    """A client example is not where it should be."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"client_examples/{name} is not here. Run this in a checkout of the project, or name one with --source."
        )


class UnreadableRecipe(Refusal):
    """A file is no recipe at all."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{file} cannot be read as a recipe: {why}.")


class RecipeHasFindings(Refusal):
    """A recipe that one of the nuclei would not take is not written."""

    def __init__(self, component: str, findings: Sequence[str]) -> None:
        super().__init__(f"The recipe of {component!r} is not written. {' '.join(findings)}")


class BadWheel(Refusal):
    """A file that is not the agent's wheel."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(
            f"{file} is no wheel of the agent: {why}. Leave out --wheel to have one built from a checkout (--source)."
        )
