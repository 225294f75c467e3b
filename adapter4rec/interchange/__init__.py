"""Exchange of item encoder adapters with PEFT and AdapterHub's ``adapters``."""
