//! The control plane: it comes up as in production, and it goes away.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails in a test's helper fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant},
};

use flowforge_testbed::{Shared, Testbed, component};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, ServiceAccount};
use kube::{
    Api, Client, Error,
    api::{ListParams, ObjectMeta, PostParams},
};

static CLUSTER: LazyLock<Shared> = LazyLock::new(|| Shared::start(Testbed::builder()));

async fn create_service_account(client: &Client, name: &str) {
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.create(&PostParams::default(), &account).await.unwrap();
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])),
        ..ConfigMap::default()
    }
}

/// The HTTP status of a refusal, or 200.
fn status<T>(outcome: Result<T, Error>) -> u16 {
    match outcome {
        Ok(_) => 200,
        Err(Error::Api(refusal)) => refusal.code,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_control_plane_comes_up_with_the_version_it_was_built_from() {
    let begin = Instant::now();
    let testbed = Testbed::builder().start().await.unwrap();
    println!("ready after {:.2} s", begin.elapsed().as_secs_f64());
    let version = testbed.client().apiserver_version().await.unwrap();
    assert_eq!(version.git_version, "v1.37.2");
    let namespaces: Api<Namespace> = Api::all(testbed.client().clone());
    let names: Vec<_> = namespaces.list(&ListParams::default()).await.unwrap().into_iter().collect();
    assert!(names.iter().any(|namespace| namespace.metadata.name.as_deref() == Some("kube-node-lease")));

    let dir = testbed.dir().to_owned();
    let begin = Instant::now();
    testbed.stop().unwrap();
    println!("gone after {:.2} s", begin.elapsed().as_secs_f64());
    assert!(!dir.exists());
}

#[test]
fn rbac_gives_a_service_account_what_its_role_says_and_nothing_else() {
    CLUSTER.run(async |testbed| {
        create_service_account(testbed.client(), "reader").await;
        testbed
            .apply_yaml(
                "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: reader, namespace: default }
rules: [{ apiGroups: [''], resources: [configmaps], verbs: [list] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: reader, namespace: default }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader }
subjects: [{ kind: ServiceAccount, name: reader, namespace: default }]
",
            )
            .await
            .unwrap();
        let reader = testbed.client_as("default", "reader").await.unwrap();
        let config_maps: Api<ConfigMap> = Api::default_namespaced(reader.clone());
        let secrets: Api<Secret> = Api::default_namespaced(reader.clone());
        assert_eq!(status(config_maps.list(&ListParams::default()).await), 200);
        assert_eq!(status(config_maps.create(&PostParams::default(), &config_map("a")).await), 403);
        assert_eq!(status(secrets.list(&ListParams::default()).await), 403);

        // Who presents nothing is nobody.
        let mut config = kube::Config::new(testbed.apiserver_url().parse().unwrap());
        config.accept_invalid_certs = true;
        let nobody = Client::try_from(config).unwrap();
        let config_maps: Api<ConfigMap> = Api::namespaced(nobody, "default");
        assert_eq!(status(config_maps.list(&ListParams::default()).await), 403);
    });
}

#[test]
fn strict_validation_refuses_a_field_that_does_not_exist() {
    CLUSTER.run(async |testbed| {
        let misspelt = "{ apiVersion: v1, kind: ConfigMap, metadata: { name: a }, dato: {} }";
        let error = testbed.apply_yaml(misspelt).await.unwrap_err();
        assert!(format!("{error:#}").contains("dato"), "{error:#}");
    });
}

#[tokio::test]
async fn what_was_written_outlives_the_api_server() {
    let testbed = Testbed::builder().start().await.unwrap();
    let config_maps: Api<ConfigMap> = Api::namespaced(testbed.client().clone(), "default");
    config_maps.create(&PostParams::default(), &config_map("kept")).await.unwrap();
    let begin = Instant::now();
    testbed.restart_apiserver().await.unwrap();
    println!("restarted after {:.2} s", begin.elapsed().as_secs_f64());
    let kept = config_maps.get("kept").await.unwrap();
    assert_eq!(kept.data, config_map("kept").data);
    let exits = testbed.exits(component::API_SERVER);
    assert_eq!(exits.iter().map(|exit| exit.code).collect::<Vec<_>>(), [128 + 9]);
}

#[tokio::test]
async fn a_paused_api_server_answers_only_after_it_is_resumed() {
    let testbed = Testbed::builder().start().await.unwrap();
    let config_maps: Api<ConfigMap> = Api::namespaced(testbed.client().clone(), "default");
    testbed.pause(component::API_SERVER).unwrap();
    let asked = tokio::spawn(async move { config_maps.list(&ListParams::default()).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!asked.is_finished());
    testbed.resume(component::API_SERVER).unwrap();
    assert_eq!(status(asked.await.unwrap()), 200);
}

#[test]
fn a_custom_resource_can_be_applied_together_with_its_definition() {
    CLUSTER.run(async |testbed| {
        let applied = testbed
            .apply_yaml(
                "
apiVersion: example.com/v1
kind: Widget
metadata: { name: w, namespace: things }
spec: { size: 3 }
---
apiVersion: v1
kind: Namespace
metadata: { name: things }
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: widgets.example.com }
spec:
  group: example.com
  scope: Namespaced
  names: { kind: Widget, plural: widgets, singular: widget }
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: { spec: { type: object, properties: { size: { type: integer } } } }
",
            )
            .await
            .unwrap();
        assert_eq!(applied, 3);
        let said = testbed
            .kubectl()
            .args(["-n", "things", "get", "widget", "w", "-o", "jsonpath={.spec.size}"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "3");
    });
}

#[test]
fn the_claim_of_the_basic_example_is_the_workflows_and_a_shared_volume_fits_it() {
    CLUSTER.run(async |testbed| {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/basic");
        let workflow = fs::read_to_string(example.join("workflow.yaml")).unwrap();
        let name = workflow.lines().find_map(|line| line.trim().strip_prefix("- claimRef: ")).unwrap();
        let volume = format!(
            "
apiVersion: v1
kind: PersistentVolume
metadata: {{ name: nas }}
spec:
  accessModes: [ReadWriteMany]
  capacity: {{ storage: 1Gi }}
  claimRef: {{ namespace: default, name: {name} }}
  nfs: {{ server: nas.example.com, path: /data }}
"
        );
        testbed.apply_yaml(&volume).await.unwrap();
        assert_eq!(testbed.apply_manifests(example.join("claim.yaml")).await.unwrap(), 1);

        let claims: Api<PersistentVolumeClaim> = Api::namespaced(testbed.client().clone(), "default");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let phase = claims.get(name).await.unwrap().status.and_then(|status| status.phase);
            if phase.as_deref() == Some("Bound") {
                break;
            }
            assert!(Instant::now() < deadline, "the claim is {phase:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}
