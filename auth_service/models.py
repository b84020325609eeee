"""The tables, as Tortoise models. Migrations are made from them; the hot reads are plain SQL beside their nouns.

To change the schema: edit a model, then `tortoise -c auth_service.stores.tortoise_cli.TORTOISE makemigrations`.
"""

from tortoise import fields
from tortoise.indexes import Index
from tortoise.models import Model


class User(Model):
    """An account. `username_key` and `email_key` are the normalised forms; uniqueness is decided on them."""

    id = fields.UUIDField(primary_key=True)
    username = fields.CharField(max_length=64)
    username_key = fields.CharField(max_length=255, unique=True)
    email = fields.CharField(max_length=254)
    email_key = fields.CharField(max_length=1024, unique=True)
    password_hash = fields.CharField(max_length=512)
    granted_scopes = fields.TextField(default="", db_default="")  # space-separated, beyond AUTH_DEFAULT_SCOPES
    created_at = fields.DatetimeField()
    last_login_at = fields.DatetimeField(null=True)
    disabled_at = fields.DatetimeField(null=True)

    class Meta:
        table = "users"


class Session(Model):
    """One login and its refresh tokens. `generation` and `rotated_at` are a checkpoint: Redis may be ahead."""

    id = fields.UUIDField(primary_key=True)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "auth_service.User", related_name="sessions", on_delete=fields.CASCADE
    )
    client_id = fields.CharField(max_length=64)
    transport = fields.CharField(max_length=8)  # "body" or "cookie"
    scope = fields.TextField()
    created_at = fields.DatetimeField()  # also `auth_time`
    expires_at = fields.DatetimeField()  # absolute: no refresh extends it
    generation = fields.IntField(default=1, db_default=1)
    rotated_at = fields.DatetimeField(null=True)  # null: not yet rotated
    unanswered = fields.IntField(null=True)  # the last generation that was used without an answer from Redis
    last_used_at = fields.DatetimeField()
    ip = fields.CharField(max_length=45, null=True)  # where it was opened from
    user_agent = fields.CharField(max_length=256, null=True)
    last_ip = fields.CharField(max_length=45, null=True)  # of its last rotation; null: not yet rotated
    revoked_at = fields.DatetimeField(null=True)
    revoked_reason = fields.CharField(max_length=32, null=True)

    class Meta:
        table = "sessions"
        indexes = (
            Index(fields=("user_id",), name="sessions_user_id"),
            Index(fields=("expires_at",), name="sessions_expires_at"),
        )


class Revocation(Model):
    """The journal: what may no longer be used, although its signature is good.

    No foreign key: deleting a user or a session must not forget that its tokens are dead.
    """

    id = fields.BigIntField(primary_key=True)
    kind = fields.CharField(max_length=1)  # s session, j token, c client, k key
    claim = fields.CharField(max_length=255)
    reason = fields.CharField(max_length=32)
    revoked_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()  # when the entry may be forgotten

    class Meta:
        table = "revocations"
        unique_together = (("kind", "claim"),)
        indexes = (
            Index(fields=("revoked_at",), name="revocations_revoked_at"),
            Index(fields=("expires_at",), name="revocations_expires_at"),
        )


class SigningKey(Model):
    """A signing key. `private_key` is encrypted; the ring holds what is decrypted. Times: `keys/schedule.py`."""

    kid = fields.CharField(max_length=64, primary_key=True)
    public_key = fields.BinaryField()  # SubjectPublicKeyInfo, DER
    private_key = fields.BinaryField(null=True)  # PKCS #8 DER inside Fernet; null once it may not sign any more
    created_at = fields.DatetimeField()
    signs_from = fields.DatetimeField()
    signs_until = fields.DatetimeField(null=True)  # null: made before keys had an end; the first rotation sets it
    refresh_token_life = fields.IntField(db_default=31_536_000)  # seconds; where unknown, the longest there can be
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "signing_keys"


class Client(Model):
    """A service that gets tokens of its own, or asks about those of others. Its secret is stored hashed alone.

    Lists are space-separated. For a while after a rotation the previous secret is good too.
    """

    id = fields.UUIDField(primary_key=True)  # never chosen, so never taken over by a later client
    name = fields.CharField(max_length=64, unique=True)
    secret_hash = fields.BinaryField()  # SHA-256: the secret is random, so nothing slower is needed
    previous_secret_hash = fields.BinaryField(null=True)
    previous_secret_until = fields.DatetimeField(null=True)
    grant_types = fields.TextField()
    scope = fields.TextField()
    audiences = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "clients"


class AuditEvent(Model):
    """Who did what, to what, and from where. No foreign keys: it outlives what it speaks of."""

    id = fields.BigIntField(primary_key=True)
    occurred_at = fields.DatetimeField()
    action = fields.CharField(max_length=48)
    actor_kind = fields.CharField(max_length=16)
    actor_id = fields.CharField(max_length=64, null=True)
    target_kind = fields.CharField(max_length=16, null=True)
    target_id = fields.CharField(max_length=64, null=True)
    ip = fields.CharField(max_length=45, null=True)
    user_agent = fields.CharField(max_length=256, null=True)
    request_id = fields.CharField(max_length=64, null=True)
    details = fields.JSONField[dict[str, object]](default=dict, db_default="{}")

    class Meta:
        table = "audit_events"
        indexes = (
            Index(fields=("occurred_at",), name="audit_events_occurred_at"),
            Index(fields=("actor_id", "id"), name="audit_events_actor"),
            Index(fields=("target_id", "id"), name="audit_events_target"),
            Index(fields=("action", "id"), name="audit_events_action"),
        )
