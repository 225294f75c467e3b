"""Adapt a source model to a target domain with text.

The launchers in ``script/`` hold the settings; one run by hand is
``python -m Downstream.Text.train --method houlsby --users … --items … --source_checkpoint …``.
``adapter4rec/target_stage.py`` is the whole run on a page.
"""

import sys

from adapter4rec.errors import run_main
from adapter4rec.launching import settings_from_command_line
from adapter4rec.stages import TextTargetSettings
from adapter4rec.target_stage import carry_out_target

if __name__ == "__main__":
    run_main(
        lambda: carry_out_target(settings_from_command_line(TextTargetSettings, sys.argv[1:])),
        one_of_several=True,
    )
