"""What Alembic runs; `hupan.migrations.upgrade` hands it the connection and the transaction."""

from alembic import context

from hupan.accounts.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=False,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
