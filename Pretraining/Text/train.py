"""Train a TransRec model on a source domain with text.

The launchers in ``script/`` hold the settings; one run by hand is
``python -m Pretraining.Text.train --users … --items …``.
``adapter4rec/source_stage.py`` is the whole run on a page.
"""

import sys

from adapter4rec.errors import run_main
from adapter4rec.launching import settings_from_command_line
from adapter4rec.source_stage import carry_out_source
from adapter4rec.stages import TextSourceSettings

if __name__ == "__main__":
    run_main(
        lambda: carry_out_source(settings_from_command_line(TextSourceSettings, sys.argv[1:])),
        one_of_several=True,
    )
