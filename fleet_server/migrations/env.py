"""What alembic runs: every missing version inside the transaction that the server opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,  # SQLite rolls DDL back too, since our transactions are explicit
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
