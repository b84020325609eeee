from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('auth_service', '0001_initial')]

    initial = False

    operations = [
        ops.CreateModel(
            name='AuditEvent',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('occurred_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('action', fields.CharField(max_length=48)),
                ('actor_kind', fields.CharField(max_length=16)),
                ('actor_id', fields.CharField(null=True, max_length=64)),
                ('target_kind', fields.CharField(null=True, max_length=16)),
                ('target_id', fields.CharField(null=True, max_length=64)),
                ('ip', fields.CharField(null=True, max_length=45)),
                ('user_agent', fields.CharField(null=True, max_length=256)),
                ('request_id', fields.CharField(null=True, max_length=64)),
                ('details', fields.JSONField(default=dict, db_default='{}', encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
            ],
            options={'table': 'audit_events', 'app': 'auth_service', 'indexes': [Index(fields=['occurred_at'], name='audit_events_occurred_at'), Index(fields=['actor_id', 'id'], name='audit_events_actor'), Index(fields=['target_id', 'id'], name='audit_events_target'), Index(fields=['action', 'id'], name='audit_events_action')], 'pk_attr': 'id', 'table_description': 'Who did what, to what, and from where. No foreign keys: it outlives what it speaks of.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Client',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('name', fields.CharField(unique=True, max_length=64)),
                ('secret_hash', fields.BinaryField()),
                ('previous_secret_hash', fields.BinaryField(null=True)),
                ('previous_secret_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('grant_types', fields.TextField(unique=False)),
                ('scope', fields.TextField(unique=False)),
                ('audiences', fields.TextField(unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'clients', 'app': 'auth_service', 'pk_attr': 'id', 'table_description': 'A service that gets tokens of its own, or asks about those of others. Its secret is stored hashed alone.'},
            bases=['Model'],
        ),
    ]
