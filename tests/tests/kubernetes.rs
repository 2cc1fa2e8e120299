//! The manifests in `k8s/`: valid for Kubernetes, and meant for each other and for this program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tillflow_tests::scratch;

/// A kustomization as rendered.
struct Rendered {
    name: String,
    objects: Vec<Value>,
}

impl Rendered {
    fn objects(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn pod(&self) -> &Value {
        &self.objects("StatefulSet").next().expect("a StatefulSet")["spec"]["template"]
    }

    fn container(&self) -> &Value {
        &self.pod()["spec"]["containers"][0]
    }
}

/// All kustomizations, by the script that also checks them against the Kubernetes schemas.
fn rendered() -> Vec<Rendered> {
    let directory = scratch("k8s");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/check-k8s");
    let output = Command::new(script).arg(directory.path()).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 2, "base and overlay: {files:?}");
    files.iter().map(|file| Rendered { name: stem(file), objects: documents(file) }).collect()
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap().to_str().unwrap().to_owned()
}

fn documents(file: &Path) -> Vec<Value> {
    use serde::Deserialize as _;
    let text = std::fs::read_to_string(file).unwrap();
    serde_norway::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

#[test]
fn the_manifests_are_valid_and_belong_together() {
    for rendered in rendered() {
        let name = &rendered.name;
        let labels = &rendered.pod()["metadata"]["labels"];
        let set = rendered.objects("StatefulSet").next().unwrap();
        for selector in [&set["spec"]["selector"]["matchLabels"]]
            .into_iter()
            .chain(rendered.objects("Service").map(|service| &service["spec"]["selector"]))
            .chain(rendered.objects("PodDisruptionBudget").map(|budget| &budget["spec"]["selector"]["matchLabels"]))
        {
            let selector = selector.as_object().unwrap_or_else(|| panic!("{name}: a selector"));
            assert!(!selector.is_empty(), "{name}: an empty selector takes every pod");
            assert!(selector.iter().all(|(key, value)| labels[key] == *value), "{name}: {selector:?} misses {labels}");
        }

        let ports: BTreeMap<_, _> = list(&rendered.container()["ports"])
            .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap()))
            .collect();
        for service in rendered.objects("Service") {
            for port in list(&service["spec"]["ports"]) {
                assert!(ports.contains_key(port["targetPort"].as_str().unwrap()), "{name}: {port}");
            }
        }
        for (probe, path) in [("livenessProbe", "/healthz"), ("startupProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let probe = &rendered.container()[probe]["httpGet"];
            assert_eq!(probe["path"], path, "{name}");
            assert!(ports.contains_key(probe["port"].as_str().unwrap()), "{name}: {probe}");
        }

        let headless: Vec<_> = rendered.objects("Service").filter(|service| service["spec"]["clusterIP"] == "None").collect();
        assert_eq!(headless.len(), 1, "{name}");
        assert_eq!(set["spec"]["serviceName"], headless[0]["metadata"]["name"], "{name}");
        let environment: Vec<_> = list(&rendered.container()["env"]).collect();
        let at = |key: &str| environment.iter().position(|entry| entry["name"] == key).unwrap_or_else(|| panic!("{name}: no {key}"));
        let advertised = format!("$(TILLFLOW_INSTANCE_ID).{}:{}", headless[0]["metadata"]["name"].as_str().unwrap(), ports["http"]);
        assert_eq!(environment[at("TILLFLOW_ADVERTISED")]["value"], advertised, "{name}: the pod's name in DNS");
        assert!(at("TILLFLOW_INSTANCE_ID") < at("TILLFLOW_ADVERTISED"), "{name}: only what comes before is filled in");

        let mounts: Vec<_> = list(&rendered.container()["volumeMounts"]).map(|mount| mount["name"].as_str().unwrap()).collect();
        let volumes = list(&rendered.pod()["spec"]["volumes"]).map(|volume| &volume["name"]);
        let claims = list(&set["spec"]["volumeClaimTemplates"]).map(|claim| &claim["metadata"]["name"]);
        assert!(volumes.chain(claims).all(|volume| mounts.contains(&volume.as_str().unwrap())), "{name}: {mounts:?}");
        let named = list(&rendered.pod()["spec"]["volumes"]).filter_map(|volume| volume["configMap"]["name"].as_str());
        for map in named {
            assert!(rendered.objects("ConfigMap").any(|object| object["metadata"]["name"] == map), "{name}: no ConfigMap {map}");
        }
    }
}

#[test]
fn a_pod_has_no_more_rights_than_it_needs() {
    for rendered in rendered() {
        let (pod, container) = (&rendered.pod()["spec"]["securityContext"], &rendered.container()["securityContext"]);
        assert_eq!(pod["runAsNonRoot"], true, "{}", rendered.name);
        assert_eq!(container["readOnlyRootFilesystem"], true, "{}", rendered.name);
        assert_eq!(container["allowPrivilegeEscalation"], false, "{}", rendered.name);
        assert_eq!(container["capabilities"]["drop"][0], "ALL", "{}", rendered.name);
        assert_eq!(rendered.pod()["spec"]["automountServiceAccountToken"], false, "{}", rendered.name);
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
