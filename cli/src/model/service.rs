//! Who runs a server, told by the settings, schemas and roles that only they have, and how a thing is
//! said there: the same wish is a statement on one service and a command of its shell on another.

use std::fmt;

use serde::Serialize;

use super::name::{identifier, literal};

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

    /// How a setting of the server is changed, and made to hold.
    pub fn set(self, name: &str, value: &str, restart: bool) -> String {
        let apply = if restart { "pending-reboot" } else { "immediate" };
        match self {
            Service::SelfManaged => {
                let then = if restart { "-- then restart the server" } else { "select pg_reload_conf();" };
                format!("alter system set {name} = {};\n{then}", quoted(value))
            }
            Service::Rds => {
                let change = format!(
                    "aws rds modify-db-parameter-group --db-parameter-group-name GROUP --parameters ParameterName={name},ParameterValue={value},ApplyMethod={apply}"
                );
                let reboot = "\naws rds reboot-db-instance --db-instance-identifier INSTANCE";
                format!("{change}{}", if restart { reboot } else { "" })
            }
            Service::Aurora => {
                let change = format!(
                    "aws rds modify-db-cluster-parameter-group --db-cluster-parameter-group-name GROUP --parameters ParameterName={name},ParameterValue={value},ApplyMethod={apply}"
                );
                let reboot = "\naws rds reboot-db-instance --db-instance-identifier WRITER";
                format!("{change}{}", if restart { reboot } else { "" })
            }
            Service::CloudSql => format!(
                "gcloud sql instances patch INSTANCE --database-flags={name}={value}\nname the flags that are set already too: the command replaces all of them"
            ),
            Service::AlloyDb => format!(
                "gcloud alloydb instances update INSTANCE --cluster=CLUSTER --region=REGION --database-flags={name}={value}\nname the flags that are set already too: the command replaces all of them"
            ),
            Service::Azure => {
                let change = format!(
                    "az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER --name {name} --value {value}"
                );
                let reboot = "\naz postgres flexible-server restart --resource-group GROUP --name SERVER";
                format!("{change}{}", if restart { reboot } else { "" })
            }
            Service::Supabase => {
                format!("npx supabase --experimental --project-ref REF postgres-config update --config {name}={value}")
            }
            Service::PlanetScale => format!(
                "in the dashboard: Clusters, Parameters, {name} = {value}{}",
                if restart { " (it restarts the server)" } else { "" }
            ),
        }
    }

    /// How logical decoding is switched on.
    pub fn logical_decoding(self) -> String {
        match self {
            Service::Rds | Service::Aurora => self.set("rds.logical_replication", "1", true),
            Service::CloudSql => self.set("cloudsql.logical_decoding", "on", true),
            Service::AlloyDb => self.set("alloydb.logical_decoding", "on", true),
            _ => self.set("wal_level", "logical", true),
        }
    }

    /// How a role may replicate.
    pub fn replication(self, user: &str) -> String {
        match self {
            Service::Rds | Service::Aurora => format!("grant rds_replication to {};", identifier(user)),
            _ => format!("alter role {} replication;", identifier(user)),
        }
    }

    /// How a role may turn triggers and foreign keys off for its own session.
    pub fn session_replication_role(self, user: &str) -> String {
        let user = identifier(user);
        match self {
            Service::Rds | Service::Aurora => format!("grant rds_superuser to {user};"),
            Service::CloudSql => format!("grant cloudsqlsuperuser to {user};"),
            Service::AlloyDb => format!("grant alloydbsuperuser to {user};"),
            Service::Azure => format!("grant azure_pg_admin to {user};"),
            Service::Supabase | Service::PlanetScale => format!("grant postgres to {user};"),
            Service::SelfManaged => format!("grant set on parameter session_replication_role to {user};"),
        }
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
    use super::{Service, quoted};

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
            Service::SelfManaged.logical_decoding(),
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
        assert!(Service::Rds.logical_decoding().contains("ParameterName=rds.logical_replication,ParameterValue=1"));
        assert!(Service::CloudSql.logical_decoding().contains("cloudsql.logical_decoding=on"));
        assert_eq!(Service::Aurora.replication("a\"b"), "grant rds_replication to \"a\"\"b\";");
    }
}
