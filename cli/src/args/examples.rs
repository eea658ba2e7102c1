//! The examples below the help of each verb. A test runs every line, in the life of one migration.

pub const RUN: &str = "\
Examples:
  pgmig run --source 'host=old dbname=app' --target 'host=new dbname=app'
  pgmig run --table-jobs 2 --max-rate 50MB --wal-budget 50GB
  pgmig run --filters filters.ini --no-owner --log-file pgmig.log

The same command goes on with a migration that was interrupted.";

pub const PREFLIGHT: &str = "\
Examples:
  pgmig preflight
  pgmig preflight --filters filters.ini --no-owner --json
  pgmig preflight --fix --yes --admin-source 'host=old user=postgres'";

pub const PARAMS: &str = "\
Examples:
  pgmig params
  pgmig params --json";

pub const REPLICA_IDENTITY: &str = "\
Examples:
  pgmig replica-identity --yes
  pgmig replica-identity --revert --yes";

pub const PLAN: &str = "\
Examples:
  pgmig plan --filters filters.ini
  pgmig plan --json";

pub const STATUS: &str = "\
Examples:
  pgmig status
  pgmig status --json --caught-up-at 1MB,5s";

pub const STALLS: &str = "\
Examples:
  pgmig stalls
  pgmig stalls --for 1s --json";

pub const SET_ENDPOS: &str = "\
Examples:
  pgmig set-endpos 16/B374D848
  pgmig set-endpos --current";

pub const THROTTLE: &str = "\
Examples:
  pgmig throttle --max-rate 20MB --max-source-connections 8
  pgmig throttle --max-slowdown 20 --max-standby-lag 30s
  pgmig throttle --max-rate 0";

pub const STOP: &str = "\
Examples:
  pgmig stop
  pgmig stop --now";

pub const TABLE: &str = "\
Examples:
  pgmig table add public.audit
  pgmig table resync public.orders";

pub const CUTOVER: &str = "\
Examples:
  pgmig cutover --dry-run
  pgmig cutover --max-downtime 30s --verify=quick";

pub const VERIFY: &str = "\
Examples:
  pgmig verify
  pgmig verify --quick --json";

pub const REPORT: &str = "\
Examples:
  pgmig report --output migration.html";

pub const CLEANUP: &str = "\
Examples:
  pgmig cleanup
  pgmig cleanup --force";

pub const RESET_TARGET: &str = "\
Examples:
  pgmig reset-target --yes";
