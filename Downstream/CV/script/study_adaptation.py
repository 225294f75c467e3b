"""Adapters against full fine-tuning, the head alone, the frozen model and training from scratch.

Do adapters come close to full fine-tuning with a few per cent of the parameters, whatever the objective and
the backbone? There is one source model and one table for each objective and backbone.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import ADAPTATIONS, adaptation

# Source launcher and backbone, by objective and name of the backbone.
sources = {
    ("SASRec", "ViT"): ("sm_vit_sasrec", "vit-base-patch16-224"),
    ("CPC", "ViT"): ("sm_vit_cpc", "vit-base-patch16-224"),
    ("SASRec", "ViTMAE"): ("sm_mae_sasrec", "vit-mae-base"),
    ("CPC", "ViTMAE"): ("sm_mae_cpc", "vit-mae-base"),
}
study = adaptation("CV", __doc__, ADAPTATIONS, sources, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
