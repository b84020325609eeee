from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields

class Migration(migrations.Migration):
    dependencies = [('auth_service', '0004_pruning')]

    initial = False

    operations = [
        ops.AddField(
            model_name='Session',
            name='unanswered',
            field=fields.IntField(null=True),
        ),
    ]
