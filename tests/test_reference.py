"""The page of settings is what the recipe's definition says."""

from pathlib import Path

from jinmaek.config.reference import reference


def test_the_settings_page_is_current():
    page = Path(__file__).parents[1] / "docs" / "recipe.md"
    assert page.read_text("utf-8") == reference() + "\n", "python -m jinmaek.config.reference > docs/recipe.md"
