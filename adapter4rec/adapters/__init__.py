"""Adapters: small trained modules beside a frozen encoder, attached at its sites and detachable again."""
