//! GPUs and other resources of executors that Spark knows by name and address.

use serde::Serialize;

use crate::{
    policy::{Addresses, CustomNeeds},
    protocol::CustomResource,
};

/// Where the command below finds what it writes down.
pub(crate) const VARIABLE: &str = "MEZZ_SPARK_RESOURCES";

/// The file in the sandbox.
pub(crate) const FILE: &str = "spark-resources.json";

/// What the cluster calls GPUs.
pub(crate) const GPUS: &str = "gpus";

/// The cluster's name of a resource of Spark's.
fn cluster_name(spark: &str) -> &str {
    match spark {
        "gpu" => GPUS,
        other => other,
    }
}

/// What an executor or driver with these needs of the cluster.
pub(crate) fn needs(resources: &[CustomResource]) -> CustomNeeds {
    resources
        .iter()
        .filter(|r| r.amount > 0)
        .map(|r| (cluster_name(&r.name).to_owned(), r.amount))
        .collect()
}

/// Whether GPUs are among them: agents that have some are shown to those only who say
/// that they know about them.
pub(crate) fn with_gpus(resources: &[CustomResource]) -> bool {
    resources.iter().any(|r| r.amount > 0 && cluster_name(&r.name) == GPUS)
}

/// Spark's form of an allocation.
#[derive(Serialize)]
struct Allocation<'a> {
    id: Id<'a>,
    addresses: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Id<'a> {
    component_name: &'static str,
    resource_name: &'a str,
}

/// The addresses in Spark's form, for `spark.executor` or `spark.driver`; nothing where
/// there are none. Resources with a discovery script are left to that.
pub(crate) fn allocations(
    component_name: &'static str,
    resources: &[CustomResource],
    addresses: &Addresses,
) -> Option<String> {
    let allocated: Vec<Allocation<'_>> = resources
        .iter()
        .filter(|r| !r.discovered)
        .filter_map(|r| {
            let addresses = addresses.get(cluster_name(&r.name))?;
            let id = Id { component_name, resource_name: &r.name };
            Some(Allocation { id, addresses })
        })
        .collect();
    // Strings only: this cannot fail, and Spark names an empty file if it did.
    (!allocated.is_empty()).then(|| serde_json::to_string(&allocated).unwrap_or_default())
}

/// Makes the executor's command tell it its addresses: Spark reads them from a file,
/// which is written first.
pub(super) fn tell(
    resources: &[CustomResource],
    addresses: &Addresses,
    arguments: Vec<String>,
    env: &mut Vec<(String, String)>,
) -> Vec<String> {
    let Some(allocated) = allocations("spark.executor", resources, addresses) else {
        return arguments;
    };
    env.push((VARIABLE.to_owned(), allocated));
    let write = format!("printf %s \"${VARIABLE}\" > {FILE} && exec \"$@\"");
    ["/bin/sh".to_owned(), "-c".to_owned(), write, "sh".to_owned()]
        .into_iter()
        .chain(arguments)
        .chain(["--resourcesFile".to_owned(), FILE.to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(discovered: bool) -> CustomResource {
        CustomResource { name: "gpu".into(), amount: 2, discovered }
    }

    fn addresses() -> Addresses {
        Addresses::from([("gpus".to_owned(), vec!["0".to_owned(), "1".to_owned()])])
    }

    #[test]
    fn the_executor_is_told_its_addresses_in_sparks_form() {
        let mut env = Vec::new();
        let told = tell(&[gpu(false)], &addresses(), vec!["java".into(), "x y".into()], &mut env);
        let json = r#"[{"id":{"componentName":"spark.executor","resourceName":"gpu"},"addresses":["0","1"]}]"#;
        assert_eq!(env, [(VARIABLE.to_owned(), json.to_owned())]);
        assert_eq!(told[..2], ["/bin/sh", "-c"]);
        assert_eq!(told[3..], ["sh", "java", "x y", "--resourcesFile", FILE]);
    }

    #[test]
    fn the_command_writes_the_file_and_becomes_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let mut env = Vec::new();
        let command = vec!["/bin/echo".into(), "a b".into()];
        let told = tell(&[gpu(false)], &addresses(), command, &mut env);
        let output = std::process::Command::new(&told[0])
            .args(&told[1..])
            .envs(env.iter().cloned())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("a b --resourcesFile {FILE}\n"));
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), env[0].1);
    }

    #[test]
    fn what_a_script_discovers_is_left_to_it() {
        let mut env = Vec::new();
        assert_eq!(tell(&[gpu(true)], &addresses(), vec!["java".into()], &mut env), ["java"]);
        assert_eq!(tell(&[], &addresses(), vec!["java".into()], &mut env), ["java"]);
        assert!(env.is_empty());
    }

    #[test]
    fn sparks_gpu_is_the_clusters_gpus() {
        let fpga = CustomResource { name: "fpga".into(), amount: 1, discovered: false };
        let none = CustomResource { name: "x".into(), amount: 0, discovered: false };
        let all = needs(&[gpu(true), fpga.clone(), none]);
        assert_eq!(all, CustomNeeds::from([("gpus".to_owned(), 2), ("fpga".to_owned(), 1)]));
        assert!(with_gpus(&[gpu(true)]) && !with_gpus(&[fpga]));
    }
}
