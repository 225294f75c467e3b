"""Item encoders, user encoders, training objectives and TransRec, which combines them."""
