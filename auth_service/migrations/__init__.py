"""The migrations, in order. `auth_service/stores/schema.py` runs them; Tortoise writes them."""
