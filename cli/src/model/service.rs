//! Who runs a server, told by the settings, schemas and roles that only they have, and how a thing is
//! said there: the same wish is a statement on one service and a command of its shell on another.

use std::fmt;

use serde::Serialize;

use super::mend::{self, SUPERUSER, Step};
use super::name::{identifier, literal};
use super::{Mend, Place};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    SelfManaged,
    Rds,
    Aurora,
    CloudSql,
    AlloyDb,
    Azure,
    Supabase,
    PlanetScale,
}

/// Settings, and what else is there by name, that tell a service; the first that is found counts.
const MARKS: [(&str, Service); 15] = [
    ("aurora", Service::Aurora),
    ("apg_", Service::Aurora),
    ("rds.", Service::Rds),
    ("alloydb", Service::AlloyDb),
    ("google_columnar_engine.", Service::AlloyDb),
    ("cloudsql", Service::CloudSql),
    ("azure", Service::Azure),
    ("supautils.", Service::Supabase),
    ("supabase", Service::Supabase),
    ("pscale", Service::PlanetScale),
    ("planetscale", Service::PlanetScale),
    ("pginsights.", Service::PlanetScale),
    ("rds_", Service::Rds),
    ("rdsadmin", Service::Rds),
    ("azuresu", Service::Azure),
];

impl Service {
    /// By names of settings, roles, schemas and functions.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Service {
        let found = MARKS.iter().find(|(mark, _)| names.iter().any(|name| name.as_ref().starts_with(mark)));
        found.map_or(Service::SelfManaged, |(_, service)| *service)
    }

    /// Who may do there what elsewhere a superuser may.
    fn administrator(self) -> &'static str {
        match self {
            Service::SelfManaged => SUPERUSER,
            _ => "the administrator that the service gives",
        }
    }

    /// How a setting of the server is changed, and made to hold.
    pub fn set(self, side: Place, name: &str, value: &str, restart: bool) -> Mend {
        let apply = if restart { "pending-reboot" } else { "immediate" };
        const REPLACES: &str = "name the flags that are set already too: the command replaces all of them";
        let change = match self {
            Service::SelfManaged => {
                let change = format!("alter system set {name} = {};", quoted(value));
                let change = Step::sql(side, SUPERUSER, change).caution("changes a setting of the whole server");
                let reload = || Step::sql(side, SUPERUSER, mend::RELOAD);
                return Mend::from(vec![change, if restart { self.restart(side) } else { reload() }]);
            }
            Service::Rds => format!(
                "aws rds modify-db-parameter-group --db-parameter-group-name GROUP --parameters ParameterName={name},ParameterValue={value},ApplyMethod={apply}"
            ),
            Service::Aurora => format!(
                "aws rds modify-db-cluster-parameter-group --db-cluster-parameter-group-name GROUP --parameters ParameterName={name},ParameterValue={value},ApplyMethod={apply}"
            ),
            // These restart where the flag needs it.
            Service::CloudSql => {
                let change = format!("gcloud sql instances patch INSTANCE --database-flags={name}={value}");
                return Mend::new(REPLACES, [Step::outside(side, change)]);
            }
            Service::AlloyDb => {
                let change = format!(
                    "gcloud alloydb instances update INSTANCE --cluster=CLUSTER --region=REGION --database-flags={name}={value}"
                );
                return Mend::new(REPLACES, [Step::outside(side, change)]);
            }
            Service::Azure => format!(
                "az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER --name {name} --value {value}"
            ),
            Service::Supabase => {
                let change = format!(
                    "npx supabase --experimental --project-ref REF postgres-config update --config {name}={value}"
                );
                return Step::outside(side, change).into();
            }
            Service::PlanetScale => {
                let restarts = if restart { " (it restarts the server)" } else { "" };
                let change = format!("in the dashboard: Clusters, Parameters, {name} = {value}{restarts}");
                return Step::outside(side, change).into();
            }
        };
        let mut steps = vec![Step::outside(side, change)];
        steps.extend(restart.then(|| self.restart(side)));
        steps.into()
    }

    /// How the server is made to begin anew.
    pub fn restart(self, side: Place) -> Step {
        let command = match self {
            Service::SelfManaged => "-- then restart the server",
            Service::Rds => "aws rds reboot-db-instance --db-instance-identifier INSTANCE",
            Service::Aurora => "aws rds reboot-db-instance --db-instance-identifier WRITER",
            Service::CloudSql => "gcloud sql instances restart INSTANCE",
            Service::AlloyDb => "gcloud alloydb instances restart INSTANCE --cluster=CLUSTER --region=REGION",
            Service::Azure => "az postgres flexible-server restart --resource-group GROUP --name SERVER",
            Service::Supabase | Service::PlanetScale => "in the dashboard: restart the database",
        };
        Step::restart(side, command)
    }

    /// How logical decoding is switched on.
    pub fn logical_decoding(self, side: Place) -> Mend {
        match self {
            Service::Rds | Service::Aurora => self.set(side, "rds.logical_replication", "1", true),
            Service::CloudSql => self.set(side, "cloudsql.logical_decoding", "on", true),
            Service::AlloyDb => self.set(side, "alloydb.logical_decoding", "on", true),
            _ => self.set(side, "wal_level", "logical", true),
        }
    }

    /// How a role may replicate.
    pub fn replication(self, side: Place, user: &str) -> Step {
        let statement = match self {
            Service::Rds | Service::Aurora => format!("grant rds_replication to {};", identifier(user)),
            _ => format!("alter role {} replication;", identifier(user)),
        };
        let caution = "it may then read every change of the whole server";
        Step::sql(side, self.administrator(), statement).caution(caution)
    }

    /// How a role sees rows that policies hide.
    pub fn bypass_row_security(self, side: Place, user: &str) -> Step {
        let statement = format!("alter role {} bypassrls;", identifier(user));
        let caution = "no policy of any database of the server hides a row from it then";
        Step::sql(side, self.administrator(), statement).caution(caution)
    }

    /// How a role may turn triggers and foreign keys off for its own session.
    pub fn session_replication_role(self, side: Place, user: &str) -> Step {
        let administrators = match self {
            Service::Rds | Service::Aurora => "rds_superuser",
            Service::CloudSql => "cloudsqlsuperuser",
            Service::AlloyDb => "alloydbsuperuser",
            Service::Azure => "azure_pg_admin",
            Service::Supabase | Service::PlanetScale => "postgres",
            Service::SelfManaged => {
                let grant = format!("grant set on parameter session_replication_role to {};", identifier(user));
                let caution = "it may then keep triggers and foreign keys from firing in its sessions";
                return Step::sql(side, SUPERUSER, grant).caution(caution);
            }
        };
        let grant = format!("grant {administrators} to {};", identifier(user));
        Step::sql(side, self.administrator(), grant).caution("makes it an administrator of the server")
    }
}

/// A value as ALTER SYSTEM takes it: a list without quotes round the whole of it, a size with them.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ' ' | '"' | '$');
    let words = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '"') && value.chars().all(plain);
    if words || value.parse::<f64>().is_ok() { value.to_string() } else { literal(value) }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::SelfManaged => "self-managed",
            Service::Rds => "Amazon RDS",
            Service::Aurora => "Amazon Aurora",
            Service::CloudSql => "Cloud SQL",
            Service::AlloyDb => "AlloyDB",
            Service::Azure => "Azure",
            Service::Supabase => "Supabase",
            Service::PlanetScale => "PlanetScale",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Service, quoted};

    #[test]
    fn a_service_is_told_by_what_only_it_has() {
        let cases = [
            (vec!["rds.extensions", "rds_superuser"], Service::Rds),
            (vec!["rds.extensions", "aurora_version"], Service::Aurora),
            (vec!["rds.extensions", "apg_plan_mgmt.x"], Service::Aurora),
            (vec!["cloudsql.iam_authentication"], Service::CloudSql),
            (vec!["cloudsqlsuperuser", "alloydb.iam_authentication"], Service::AlloyDb),
            (vec!["azure.extensions"], Service::Azure),
            (vec!["supabase_admin"], Service::Supabase),
            (vec!["pscale_extensions"], Service::PlanetScale),
            (vec!["work_mem", "my.azure"], Service::SelfManaged),
        ];
        for (names, expected) in cases {
            assert_eq!(Service::of(&names), expected, "{names:?}");
        }
    }

    #[test]
    fn a_setting_is_changed_in_the_words_of_its_service() {
        assert_eq!(
            Service::SelfManaged.logical_decoding(Place::Source).to_string(),
            "alter system set wal_level = logical;\n-- then restart the server"
        );
        let values = [
            ("64MB", "'64MB'"),
            ("-1", "-1"),
            ("0.5", "0.5"),
            ("\"$user\", public", "\"$user\", public"),
            ("a/b", "'a/b'"),
        ];
        for (value, expected) in values {
            assert_eq!(quoted(value), expected);
        }
        let decoding = |service: Service| service.logical_decoding(Place::Source).to_string();
        assert!(decoding(Service::Rds).contains("ParameterName=rds.logical_replication,ParameterValue=1"));
        assert!(decoding(Service::CloudSql).contains("cloudsql.logical_decoding=on"));
        let step = Service::Aurora.replication(Place::Source, "a\"b");
        assert_eq!(step.statement, "grant rds_replication to \"a\"\"b\";");
        assert!(Service::Azure.restart(Place::Source).statement.starts_with("az postgres flexible-server restart"));
    }
}
