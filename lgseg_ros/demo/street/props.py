"""Everything a street is furnished with, drawn once and shown in all frames."""

import numpy as np

from . import cars, furniture, people, plants
from . import textures as facades
from .light import lit_texture
from .texture import Texture

SIDES = (-1, 1)


class Props:
    """The textures and solids of one street under one light.

    fronts: (width in metres, storeys) of each house; `front`, `roof` and `garden` textures exist per side (-1 left, 1 right),
    since the sun falls on one of them.
    """

    def __init__(self, rng, light):
        self._light = light
        self.fronts, self.front, self.gable = [], [], []
        for _ in range(12):
            self._add_house(rng)
        self.roof = [self._on_both_sides(facades.roof(rng)) for _ in range(3)]
        self.garden = {'boards': self._on_both_sides(furniture.boards(rng)), 'hedge': self._on_both_sides(plants.hedge(rng)),
                       'railing': self._on_both_sides(furniture.railing(rng))}
        self.trees = [self._tree(rng) for _ in range(6)]
        self.signs = [(self._lit(pixels, light.front), height) for pixels, height in furniture.signs(rng)]
        self.traffic_lights = [Texture(furniture.traffic_light(lamp), light.haze) for lamp in range(3)]
        self.walkers = [self._loops(people.walker(rng, light.front)) for _ in range(6)]
        self.cyclists = [self._loops(people.cyclist(rng, light.front)) for _ in range(4)]
        self.cars = {toward: [cars.Car(rng, light, toward) for _ in range(9)] for toward in (False, True)}
        self.shadow = furniture.soft_shadow()

    def _lit(self, pixels, tint):
        lit = lit_texture(pixels[..., :3], tint)
        return Texture(np.dstack([lit, pixels[..., 3]]) if pixels.shape[2] == 4 else lit, self._light.haze)

    def _on_both_sides(self, pixels):
        return {side: self._lit(pixels, self._light.wall(side)) for side in SIDES}

    def _add_house(self, rng):
        width, storeys = float(rng.uniform(5.5, 12.5)), int(rng.choice((2, 2, 3, 3, 4)))
        pixels, kind = facades.front(rng, width, storeys)
        self.fronts.append((width, storeys))
        self.front.append(self._on_both_sides(pixels))
        self.gable.append(self._lit(facades.side(rng, kind), self._light.front))

    def _tree(self, rng):
        pixels, extent = plants.bare_tree(rng) if rng.random() < 0.55 else plants.leafy_tree(rng)
        pixels[..., :3] = lit_texture(np.ascontiguousarray(pixels[..., :3]), self._light.front)
        return Texture(pixels, self._light.haze, extent)

    def _loops(self, loops):
        return {facing: [Texture(pixels, self._light.haze) for pixels in loop] for facing, loop in loops.items()}
