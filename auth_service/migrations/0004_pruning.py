from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('auth_service', '0003_key_life_cycle')]

    initial = False

    operations = [
        ops.AddIndex(
            model_name='Revocation',
            index=Index(fields=['expires_at'], name='revocations_expires_at'),
        ),
        ops.AddField(
            model_name='Session',
            name='last_ip',
            field=fields.CharField(null=True, max_length=45),
        ),
        ops.AddIndex(
            model_name='Session',
            index=Index(fields=['expires_at'], name='sessions_expires_at'),
        ),
    ]
