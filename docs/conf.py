"""What Sphinx builds the manual from: ``make docs``."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# For autodoc here; for the kernels that run the notebooks, and for the commands that these give.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["IPYTHONDIR"] = str(ROOT / "build/ipython")
startup = ROOT / "build/ipython/profile_default/startup"
startup.mkdir(parents=True, exist_ok=True)
shutil.copy(ROOT / "docs/bash_cells.py", startup)
# Every kernel would warn that others could listen, but it serves this machine alone.
(startup.parent / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 'ERROR'\n")

from sphinx.ext.autodoc.mock import mock  # noqa: E402

from data.terms import VERSION  # noqa: E402

project = "Sleep staging with RecSleepNet and SynthSleepNet"
author = "The maintainers"
version = release = VERSION
html_title = f"RecSleepNet and SynthSleepNet {VERSION}"
html_theme = "furo"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["manual.css"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

# Notebooks are text, run anew in every build; an error in one ends it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_render_markdown_format = "gfm"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Signatures and docstrings need neither Keras nor TensorFlow, which take longer to start than all pages to read. What
# stands in for Keras must have classes that can be inherited from and stand in annotations, and a decorator that gives
# back its class.
autodoc_mock_imports = ["keras", "tensorflow"]
with mock(autodoc_mock_imports):
    import keras.layers
    import keras.saving

    for module, name in ((keras, "KerasTensor"), (keras, "Model"), (keras, "Variable"), (keras.layers, "Layer")):
        setattr(module, name, type(name, (), {}))
    keras.saving.register_keras_serializable = lambda **_: lambda layer: layer
    import recsleep
    import synth

    for package in (recsleep, synth):
        for name in package.__all__:
            getattr(package, name)
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
