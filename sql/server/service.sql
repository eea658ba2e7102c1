-- Names that only a managed service has: of settings, roles, schemas and functions.
select name::text from pg_catalog.pg_settings where name like '%.%' or name like 'aurora%' or name like 'apg%'
 union all
select rolname::text from pg_catalog.pg_roles
 where rolname in ('rds_superuser', 'rdsadmin', 'cloudsqlsuperuser', 'alloydbsuperuser', 'azure_pg_admin', 'azuresu', 'supabase_admin')
 union all
select nspname::text from pg_catalog.pg_namespace where nspname = 'pscale_extensions'
 union all
select proname::text from pg_catalog.pg_proc where proname = 'aurora_version' and pronamespace = 'pg_catalog'::regnamespace
