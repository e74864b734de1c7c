"""Rendered heads in the skin of cut-out photos: for a segmenter of skin that has photos of hands and of no face."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.train.cutouts import Cutout
from visionkit.train.shapes import Textures, random_color

__all__ = ["random_head", "skin_patch", "skin_tone"]

Image = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 320, 256  # of the drawing
MIDDLE = WIDTH // 2
BROW, CHIN = 96, 196  # rows of the drawing, of a face of usual length


def skin_tone(image: Image, rng: np.random.Generator, vary: float = 1.0) -> Image:
    """The image as skin of another tone, mostly darker, with red lost last; the more so, the larger `vary`."""
    depth = max(0.0, float(rng.normal(0.25 * vary, 0.3 * vary))) if rng.random() < 0.6 else 0.0
    power = 1 + depth * np.array([1.2, 0.9, 0.6]) * rng.uniform(0.8, 1.2, 3)
    light = float(np.exp(rng.normal(0, 0.12 * vary)))
    table = 255 * (np.arange(256)[:, None] / 255) ** power * light
    pale = rng.uniform(0, 0.5) if rng.random() < 0.5 else 0.0  # of its colour that is lost
    if vary > 1 and rng.random() < 0.5:
        pale = -float(rng.uniform(0, 0.5 * vary))  # or gained, as under warm lamps
    out = cv2.LUT(np.ascontiguousarray(image), np.clip(table, 0, 255).astype(np.uint8).reshape(256, 1, 3))
    grey = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(out, 1 - pale, grey, pale, 0), np.uint8)


def skin_patch(cutout: Cutout, rng: np.random.Generator) -> Image:
    """A square uint8 (64, 64, 3) out of the inside of a cut-out object, smoothed by chance."""
    inside = cv2.distanceTransform((cutout.alpha > 250).astype(np.uint8), cv2.DIST_L2, 3)
    rows, columns = np.nonzero(inside >= 0.6 * float(inside.max()))
    k = int(rng.integers(len(rows)))
    y, x = int(rows[k]), int(columns[k])
    half = max(1, int(0.7 * inside[y, x]))
    piece = cutout.image[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
    patch = cv2.resize(piece, (64, 64), interpolation=cv2.INTER_CUBIC)
    blur = rng.uniform(1, 8)
    return np.asarray(cv2.GaussianBlur(patch, (0, 0), blur), np.uint8)


def random_head(cutout: Cutout, textures: Textures, rng: np.random.Generator) -> Cutout:
    """A head, mostly with neck and shoulders; `part` is the bare skin of face, ears and neck.

    Args:
        cutout: whose inside gives the colour and texture of the skin.
    """
    drawing = _Drawing(skin_patch(cutout, rng), textures, rng)
    wide = int(rng.integers(34, 52))
    chin = CHIN + int(rng.integers(-14, 18))
    hair = random_color(rng) * rng.uniform(0.1, 0.7)
    drawing.hair_behind(wide, chin, hair)
    drawing.body(wide, chin)
    drawing.face(wide, chin)
    drawing.features(wide, chin, hair)
    drawing.top(wide, hair)
    return drawing.cutout()


class _Drawing:
    """A picture that grows: colours float32 (H, W, 3), what is covered and what is skin, uint8 (H, W)."""

    def __init__(self, skin: Image, textures: Textures, rng: np.random.Generator) -> None:
        self.textures, self.rng = textures, rng
        self.skin = self._wide(skin)
        self.image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.cover = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.bare = np.zeros((HEIGHT, WIDTH), np.uint8)

    @staticmethod
    def _wide(patch: Image) -> Image:
        return np.asarray(cv2.resize(patch, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)

    def _stuff(self, color: npt.NDArray[np.float64] | None = None) -> Image:
        return self._wide(np.asarray(self.textures.patch(self.rng, color), np.uint8))

    def _put(self, shape: Image, stuff: Image, *, bare: bool) -> None:
        inside = shape > 0
        self.image[inside] = stuff[inside]
        self.cover[inside] = 255
        self.bare[inside] = 255 if bare else 0

    @staticmethod
    def _ellipse(x: float, y: float, rx: float, ry: float) -> Image:
        shape = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(shape, (round(x), round(y)), (max(1, round(rx)), max(1, round(ry))), 0, 0, 360, 255, -1)
        return shape

    @staticmethod
    def _polygon(points: list[tuple[float, float]]) -> Image:
        shape = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(shape, [np.rint(points).astype(np.int32)], (255,))
        return shape

    def hair_behind(self, wide: int, chin: int, hair: npt.NDArray[np.float64]) -> None:
        """Hair that hangs beside and behind the face."""
        if self.rng.random() < 0.45:
            low = self.rng.uniform(BROW + 40, chin + 80)
            self._put(self._ellipse(MIDDLE, (40 + low) / 2, wide * 1.35, (low - 40) / 2), self._stuff(hair), bare=False)

    def body(self, wide: int, chin: int) -> None:
        """Neck, and shoulders in clothes that leave some of it bare."""
        rng = self.rng
        neck = wide * rng.uniform(0.5, 0.8)
        darker = np.clip(self.skin * rng.uniform(0.6, 0.95), 0, 255).astype(np.uint8)
        base = chin + rng.uniform(10, 45)
        corners = [(-neck, chin - 40), (neck, chin - 40), (neck * 1.15, base + 30), (-neck * 1.15, base + 30)]
        self._put(self._polygon([(MIDDLE + x, y) for x, y in corners]), darker, bare=True)
        if rng.random() < 0.15:
            return
        collar = chin - 12 if rng.random() < 0.35 else base
        sag, shoulder = rng.uniform(-4, 40), rng.uniform(90, 126)
        drop = rng.uniform(15, 45)
        line = [(-shoulder, HEIGHT), (-shoulder, base + drop + 10), (-neck * 1.2, collar), (0, collar + sag)]
        line += [(neck * 1.2, collar), (shoulder, base + drop + 10), (shoulder, HEIGHT)]
        self._put(self._polygon([(MIDDLE + x, y) for x, y in line]), self._stuff(), bare=False)

    def face(self, wide: int, chin: int) -> None:
        """An egg with ears, lit from one side."""
        rng = self.rng
        for side in (-1, 1):
            ear = self._ellipse(MIDDLE + side * wide, BROW + 34, wide * 0.16, 15)
            self._put(ear, self.skin, bare=True)
        top = BROW - wide * 0.9
        half = (chin - top) / 2
        shape = self._ellipse(MIDDLE, top + half, wide, half)
        jaw = self._ellipse(MIDDLE, chin - 34, wide * rng.uniform(0.7, 0.98), 34)
        self._put(np.maximum(shape, jaw), self.skin, bare=True)
        x = (np.arange(WIDTH) - MIDDLE) / (2 * wide)
        y = (np.arange(HEIGHT) - BROW)[:, None] / 200
        fall = 1 + rng.normal(0, 0.3) * x[None] + rng.normal(0, 0.3) * y - rng.uniform(0, 0.6) * x[None] ** 2
        lit = np.clip(self.image * np.clip(fall, 0.3, 1.6)[..., None], 0, 255).astype(np.uint8)
        self.image = np.where(self.bare[..., None] > 0, lit, self.image)

    def features(self, wide: int, chin: int, hair: npt.NDArray[np.float64]) -> None:
        """Eyes, brows, nose, mouth, sometimes a beard or glasses: all of it counts as skin."""
        rng, eye = self.rng, BROW + 26
        dark = tuple(float(v) for v in hair * 0.6)
        own = self.image[eye + 20, MIDDLE].astype(float)
        shade = tuple(own * rng.uniform(0.5, 0.9))
        if rng.random() < 0.35:
            grown = self._ellipse(MIDDLE, chin - 22, wide * 0.95, 42) & self.bare
            part = (rng.uniform(0.2, 0.7) * cv2.GaussianBlur(grown, (0, 0), 6).astype(np.float32) / 255)[..., None]
            self.image = (self.image * (1 - part) + np.asarray(dark) * part).astype(np.uint8)
        gap = wide * rng.uniform(0.38, 0.48)
        for side in (-1, 1):
            x = round(MIDDLE + side * gap)
            size = (round(wide * 0.2), int(rng.integers(3, 7)))
            cv2.ellipse(self.image, (x, eye), (size[0] + 3, size[1] + 4), 0, 0, 360, shade, -1)
            cv2.ellipse(self.image, (x, eye), size, 0, 0, 360, (225, 225, 225), -1)
            cv2.circle(self.image, (x + int(rng.integers(-2, 3)), eye), 4, (40, 35, 30), -1)
            cv2.line(
                self.image, (x - size[0] - 3, eye - 13), (x + size[0] + 3, eye - 14), dark, int(rng.integers(2, 6))
            )
        nose = eye + round(0.42 * (chin - eye))
        cv2.line(self.image, (MIDDLE + int(rng.integers(-5, 6)), eye + 6), (MIDDLE + 6, nose), shade, 4)
        cv2.line(self.image, (MIDDLE - 9, nose), (MIDDLE + 9, nose), shade, 4)
        lips = tuple(np.clip(own * (0.6, 0.6, 0.9) * rng.uniform(0.7, 1.1), 0, 255))
        mouth = eye + round(0.66 * (chin - eye))
        cv2.ellipse(
            self.image,
            (MIDDLE, mouth),
            (round(wide * rng.uniform(0.3, 0.5)), int(rng.integers(2, 8))),
            0,
            0,
            360,
            lips,
            -1,
        )
        if rng.random() < 0.25:
            cv2.line(self.image, (MIDDLE - 14, mouth), (MIDDLE + 14, mouth), (235, 235, 235), 3)
        if rng.random() < 0.3:
            frame = tuple(float(v) for v in random_color(rng) * 0.5)
            thick = int(rng.integers(1, 4))
            for side in (-1, 1):
                x = round(MIDDLE + side * gap)
                cv2.ellipse(self.image, (x, eye), (round(wide * 0.34), 15), 0, 0, 360, frame, thick)
            cv2.line(self.image, (MIDDLE - 6, eye), (MIDDLE + 6, eye), frame, thick)

    def top(self, wide: int, hair: npt.NDArray[np.float64]) -> None:
        """Hair or a hat down to somewhere on the forehead; sometimes neither."""
        roll = self.rng.random()
        if roll < 0.1:
            return
        line = BROW - self.rng.uniform(2, wide * 0.7)
        high = wide * self.rng.uniform(1.0, 1.5)
        shape = self._ellipse(MIDDLE, line + 8, wide * self.rng.uniform(1.0, 1.15), high)
        shape[round(line) :, round(MIDDLE - wide * 0.86) : round(MIDDLE + wide * 0.86)] = 0
        shape[round(line + self.rng.uniform(5, 50)) :] = 0
        self._put(shape, self._stuff() if roll > 0.85 else self._stuff(hair), bare=False)

    def cutout(self) -> Cutout:
        """The drawing, its hard edges smoothed."""
        image = cv2.GaussianBlur(self.image, (0, 0), self.rng.uniform(0.8, 2.0))
        filled = self.image.copy()
        filled[self.cover == 0] = image[self.cover == 0]
        soft = np.where(self.cover[..., None] > 0, cv2.GaussianBlur(filled, (0, 0), 1.0), self.image)
        return Cutout(np.asarray(soft, np.uint8), self.cover, self.bare)
