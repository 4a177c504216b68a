use serde_json::json;

use super::*;
use crate::v1;

#[test]
fn declared_defaults_are_written_and_deprecated_ones_are_not() {
    let filters = v1::Filters::default();
    assert_eq!(to_value(&filters), json!({"refuse_seconds": 5.0}));
    // `Resource.role` has the default `*`, but is deprecated.
    let resource = v1::Resource { name: "cpus".into(), ..Default::default() };
    assert_eq!(to_value(&resource), json!({"name": "cpus", "type": "SCALAR"}));
}

#[test]
fn numbers_bytes_enums_and_maps() {
    let mut status = v1::TaskStatus {
        task_id: v1::TaskId { value: "t".into() },
        uuid: Some(vec![0, 255]),
        timestamp: Some(1.5),
        ..Default::default()
    };
    status.set_state(v1::TaskState::TaskRunning);
    let value = json!({"task_id": {"value": "t"}, "state": "TASK_RUNNING", "timestamp": 1.5,
        "uuid": "AP8="});
    assert_eq!(to_value(&status), value);
    assert_eq!(from_value::<v1::TaskStatus>(&value).unwrap(), status);

    let text = r#"{"name":"t","task_id":{"value":"t"},"agent_id":{"value":"a"},
        "limits":{"cpus":{"value":"Infinity"},"mem":{"value":64}}}"#;
    let task: v1::TaskInfo = from_str(text).unwrap();
    assert_eq!(task.limits["cpus"].value, f64::INFINITY);
    assert_eq!(from_str::<v1::TaskInfo>(&to_string(&task)).unwrap(), task);
}

#[test]
fn numbers_are_read_as_they_were_written() {
    // The fuzzer's: one more in the last bit without `float_roundtrip`.
    let n = 15.000001460313797;
    let written = to_string(&v1::value::Scalar { value: n });
    assert_eq!(from_str::<v1::value::Scalar>(&written).unwrap().value.to_bits(), n.to_bits());
}

#[test]
fn reading_is_lenient_where_mesos_is() {
    let text = r#"{"user":"u","name":"n","nonsense":[1],"id":null,"checkpoint":"true",
        "failover_timeout":"2.5","capabilities":[{"type":"FLYING"}]}"#;
    let info: v1::FrameworkInfo = from_str(text).unwrap();
    assert_eq!((info.checkpoint, info.failover_timeout), (Some(true), Some(2.5)));
    assert_eq!(info.capabilities[0].r#type, None);
}

#[test]
fn each_mistake_is_told_by_its_path() {
    for (text, tells) in [
        (r#"{"user":"u"}"#, "name: is required and missing"),
        (r#"[]"#, "FrameworkInfo: expected an object"),
        (r#"{"user":1,"name":"n"}"#, "user: expected a string, got 1"),
        (r#"{"user":"u","name":"n","roles":"a"}"#, "roles: expected a list"),
        (r#"{"user":"u","name":"n","roles":["a",2]}"#, "roles[1]: expected a string"),
        (r#"{"user":"u","name":"n","id":{}}"#, "id.value: is required"),
        (r#"{"user":"u","name":"n","checkpoint":"yes"}"#, "checkpoint: expected true or false"),
        (
            r#"{"user":"u","name":"n","failover_timeout":"x"}"#,
            "failover_timeout: expected a number",
        ),
    ] {
        let error = from_str::<v1::FrameworkInfo>(text).expect_err(text).to_string();
        assert!(error.contains(tells), "{text}: {error}");
    }
    // An unknown name is an error where the enum is required.
    let text = r#"{"name":"cpus","type":"VECTOR"}"#;
    let error = from_str::<v1::Resource>(text).unwrap_err().to_string();
    assert!(error.contains("type: expected a known name"), "{error}");
    let text = r#"{"begin":-1,"end":2}"#;
    let error = from_str::<v1::value::Range>(text).unwrap_err().to_string();
    assert!(error.contains("begin: expected a whole number"), "{error}");
    assert!(matches!(from_str::<v1::Resource>("{"), Err(JsonError::Syntax(_))));
}
