import gesm

project = "gesm"
author = "The gesm authors"
copyright = author
version = release = gesm.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"gesm {version}"

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "

default_role = "code"  # docstrings write code in single backticks, as Markdown does
napoleon_numpy_docstring = False
napoleon_use_param = False  # argument types are prose ("int or tuple"), not references
napoleon_use_rtype = False
napoleon_custom_sections = ["Shapes"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}

# PyTorch and PyG are not linked to (their inventories would have to be fetched to build), and PyG's docstring style
# marks literals with :obj:.
nitpick_ignore_regex = [
    (r"py:(class|func|obj|mod)", r"(Tensor|torch|torch_geometric|numpy|scipy|collections|contextlib|os|pathlib|typing)(\..*)?"),
    ("py:obj", r"(?!gesm).*"),
    ("py:data", "MODELS"),  # a table of the recipe module, not public
]
