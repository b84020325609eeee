from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields

class Migration(migrations.Migration):
    dependencies = [('auth_service', '0002_clients_and_audit_events')]

    initial = False

    operations = [
        ops.AlterModelOptions(
            name='SigningKey',
            options={'table': 'signing_keys', 'app': 'auth_service', 'pk_attr': 'kid', 'table_description': 'A signing key. `private_key` is encrypted; the ring holds what is decrypted. Times: `keys/schedule.py`.'},
        ),
        ops.AddField(
            model_name='SigningKey',
            name='refresh_token_life',
            field=fields.IntField(db_default=31536000),
        ),
        ops.AddField(
            model_name='SigningKey',
            name='revoked_at',
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name='SigningKey',
            name='signs_until',
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
    ]
