from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.fields.base import OnDelete
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.CreateModel(
            name='Revocation',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('kind', fields.CharField(max_length=1)),
                ('claim', fields.CharField(max_length=255)),
                ('reason', fields.CharField(max_length=32)),
                ('revoked_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'revocations', 'app': 'auth_service', 'unique_together': (('kind', 'claim'),), 'indexes': [Index(fields=['revoked_at'], name='revocations_revoked_at')], 'pk_attr': 'id', 'table_description': 'The journal: what may no longer be used, although its signature is good.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='SigningKey',
            fields=[
                ('kid', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('public_key', fields.BinaryField()),
                ('private_key', fields.BinaryField(null=True)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('signs_from', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'signing_keys', 'app': 'auth_service', 'pk_attr': 'kid', 'table_description': 'A signing key. `private_key` is encrypted; the ring holds what is decrypted.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='User',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('username', fields.CharField(max_length=64)),
                ('username_key', fields.CharField(unique=True, max_length=255)),
                ('email', fields.CharField(max_length=254)),
                ('email_key', fields.CharField(unique=True, max_length=1024)),
                ('password_hash', fields.CharField(max_length=512)),
                ('granted_scopes', fields.TextField(default='', db_default='', unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('last_login_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('disabled_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'users', 'app': 'auth_service', 'pk_attr': 'id', 'table_description': 'An account. `username_key` and `email_key` are the normalised forms; uniqueness is decided on them.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Session',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('user', fields.ForeignKeyField('auth_service.User', source_field='user_id', db_constraint=True, to_field='id', related_name='sessions', on_delete=OnDelete.CASCADE)),
                ('client_id', fields.CharField(max_length=64)),
                ('transport', fields.CharField(max_length=8)),
                ('scope', fields.TextField(unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('generation', fields.IntField(default=1, db_default=1)),
                ('rotated_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('last_used_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('ip', fields.CharField(null=True, max_length=45)),
                ('user_agent', fields.CharField(null=True, max_length=256)),
                ('revoked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('revoked_reason', fields.CharField(null=True, max_length=32)),
            ],
            options={'table': 'sessions', 'app': 'auth_service', 'indexes': [Index(fields=['user_id'], name='sessions_user_id')], 'pk_attr': 'id', 'table_description': 'One login and its refresh tokens. `generation` and `rotated_at` are a checkpoint: Redis may be ahead.'},
            bases=['Model'],
        ),
    ]
