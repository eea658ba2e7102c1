-- Nothing here is for everybody: who steers a migration is granted it by name.

revoke all on schema pgmig from public;
revoke all on all tables in schema pgmig from public;
revoke all on all sequences in schema pgmig from public;
revoke all on all functions in schema pgmig from public;
