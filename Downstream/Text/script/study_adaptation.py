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
    ("SASRec", "BERT"): ("sm_base_sasrec", "bert/bert_base_uncased"),
    ("CPC", "BERT"): ("sm_base_cpc", "bert/bert_base_uncased"),
    ("SASRec", "RoBERTa"): ("sm_base_sasrec", "roberta/roberta_base"),
    ("CPC", "RoBERTa"): ("sm_base_cpc", "roberta/roberta_base"),
}
study = adaptation("Text", __doc__, ADAPTATIONS, sources, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
