"""Recipes: what a run is asked to do, checked before anything heavy is loaded."""

from jinmaek.config.load import builtin_recipes, load_recipe, recipe_from_dict
from jinmaek.config.recipe import Recipe

__all__ = ["Recipe", "builtin_recipes", "load_recipe", "recipe_from_dict"]
