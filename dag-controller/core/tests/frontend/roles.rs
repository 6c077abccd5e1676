//! Roles of a node, and what it asks of its gang.

use super::*;

fn with_roles(roles: &Value) -> Value {
    with_node(json!({"roles": roles}))
}

#[test]
fn roles_make_one_gang_whose_ranks_follow_each_other() {
    let document = workflow(json!([{
        "id": "mpi", "image": "i", "outputs": [{"name": "loss", "collect": "worker"}],
        "roles": [
            {"name": "launcher"},
            {"name": "worker", "replicas": 4, "min": 2, "successPolicy": "Ignore", "failurePolicy": "ReplaceMember"},
        ],
    }]));
    let dag = compile(&document, Options::default()).unwrap().dag;
    let node = dag.node(NodeIx(0));
    let worker =
        Role { name: "worker".into(), replicas: 4, min: 2, success: Success::Ignore, failure: Failure::ReplaceMember };
    assert_eq!((node.replicas, node.roles.as_deref().map(|roles| roles[1].clone())), (5, Some(worker)));
    assert_eq!(node.outputs.as_ref().unwrap().0[0].collect, Some(1..5));
    // As the API server stores it, with the default that has no meaning here.
    let dag = compile(&with_node(json!({"replicas": 1, "roles": []})), Options::default()).unwrap().dag;
    assert_eq!(dag.node(NodeIx(0)).roles, None);
    let elastic =
        compile(&with_node(json!({"replicas": 4, "gang": {"minMember": 3}})), Options::default()).unwrap().dag;
    let roles = elastic.node(NodeIx(0)).roles.clone().unwrap();
    assert_eq!((roles[0].name.as_str(), roles[0].replicas, roles[0].min), ("worker", 4, 3));
}

#[test]
fn mistakes_in_roles_are_named() {
    check(
        &with_roles(&json!([{"replicas": 2}])),
        "spec.nodes[0].roles[0]: has no name; add name, unique in the node, like worker",
    );
    check(
        &with_roles(&json!([{"name": "a"}, {"name": "a"}])),
        r#"spec.nodes[0].roles[1].name: "a" is there twice; rename one of the two"#,
    );
    check(
        &with_roles(&json!([{"name": "a", "replicas": 2, "min": 3}])),
        "spec.nodes[0].roles[0].min: must be at most 2, is 3; write a number from 1 to 2",
    );
    check(
        &with_roles(&json!([{"name": "a", "min": 0}])),
        "spec.nodes[0].roles[0].min: must be at least 1 in a role that counts for the success; write at least 1, or successPolicy: Ignore",
    );
    check(
        &with_roles(&json!([{"name": "a", "successPolicy": "any"}])),
        r#"spec.nodes[0].roles[0].successPolicy: "any" is none of All, Any, Ignore; did you mean Any?"#,
    );
    check(
        &with_roles(&json!([{"name": "a", "failurePolicy": "Fail"}])),
        r#"spec.nodes[0].roles[0].failurePolicy: "Fail" is none of FailGang, ReplaceMember, Ignore; write one of FailGang, ReplaceMember, Ignore"#,
    );
    check(
        &with_roles(&json!([{"name": "a", "successPolicy": "Ignore"}])),
        "spec.nodes[0].roles: have successPolicy Ignore all of them, so that the gang would never be done; give the role that does the work successPolicy: All or Any",
    );
    check(
        &with_roles(&json!([{"name": "a", "replicas": 8000}, {"name": "b", "replicas": 8000}])),
        "spec.nodes[0].roles: have 16000 replicas together, at most 8192 are possible; make the roles smaller, or make nodes of their own of some",
    );
    check(
        &with_roles(&json!([{"name": "a", "topology": {"required": "rak"}}])),
        r#"spec.nodes[0].roles[0].topology.required: "rak" is no topology level; did you mean rack?"#,
    );
    check(
        &with_node(json!({"replicas": 3, "roles": [{"name": "a"}]})),
        "spec.nodes[0].replicas: has no meaning beside roles; remove it: each role has its replicas",
    );
    check(
        &with_node(json!({"memberLostPolicy": "Fail", "roles": [{"name": "a"}]})),
        "spec.nodes[0].memberLostPolicy: has no meaning beside roles; remove it: failurePolicy of each role says what a lost member means",
    );
    check(
        &with_node(json!({"roles": [{"name": "a"}], "outputs": [{"name": "x", "collect": "worker"}]})),
        r#"spec.nodes[0].outputs[0].collect: "worker" is no role of this node; write a"#,
    );
    check(
        &workflow(json!([{"id": "a", "roles": [{"name": "a", "image": "i"}, {"name": "b"}]}])),
        "spec.nodes[0]: has no image for all of its roles; add image to the node, or to each role",
    );
}

#[test]
fn mistakes_in_what_a_node_asks_of_its_gang_are_named() {
    check(
        &with_node(json!({"replicas": 2, "gang": {"minMember": 3}})),
        "spec.nodes[0].gang.minMember: 3 are more than the node has replicas (2); write at most 2",
    );
    check(
        &with_node(json!({"gang": {"minMember": 1, "gpu": {"count": 1}}, "roles": [{"name": "a"}]})),
        "spec.nodes[0].gang.minMember: has no meaning beside roles; write min of each role\n\
         spec.nodes[0].gang.gpu: has no meaning beside roles; write resources of the roles that need GPUs",
    );
    check(
        &with_node(json!({"gang": {"topology": {"required": "rack"}}, "topology": {"required": "rack"}})),
        "spec.nodes[0].gang.topology: is there twice: the node has topology too; remove one of the two",
    );
    check(
        &with_node(json!({"gang": {"gpu": {"product": "H100 80GB", "mig": "1G"}}})),
        "spec.nodes[0].gang.gpu.count: is missing; write the GPUs of each pod, like count: 8\n\
         spec.nodes[0].gang.gpu.product: \"H100 80GB\" is no value of a label; write the value of the node label nvidia.com/gpu.product, like NVIDIA-H100-80GB-HBM3\n\
         spec.nodes[0].gang.gpu.mig: \"1G\" is no MIG profile; write a profile, like 1g.10gb",
    );
    check(
        &with_node(json!({"gang": {"topology": {"spread": {"level": "rack", "minDomains": 2}}}})),
        "spec.nodes[0].gang.topology.spread.minDomains: 2 domains are more than the node has replicas (1); write at most 1",
    );
}
