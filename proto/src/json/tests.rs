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
        (r#"{"user":"u","name":"n","roles":{}}"#, "roles: expected a string, got an object"),
        (r#"{"user":["u"],"name":"n"}"#, "user: expected a string, got a list"),
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
    // What is no JSON is told first.
    let error = from_str::<v1::FrameworkInfo>(r#"{"user":1,"name":}"#).unwrap_err();
    assert!(matches!(error, JsonError::Syntax(_)), "{error}");
    let text = r#"{"begin":-1,"end":2}"#;
    let error = from_str::<v1::value::Range>(text).unwrap_err().to_string();
    assert!(error.contains("begin: expected a whole number"), "{error}");
    assert!(matches!(from_str::<v1::Resource>("{"), Err(JsonError::Syntax(_))));
}

#[test]
fn of_long_keys_and_texts_errors_tell_the_beginning() {
    let long = "ä".repeat(100_000);
    let task = r#""name":"t","task_id":{"value":"t"},"agent_id":{"value":"a"}"#;
    for text in [
        format!(r#"{{{task},"limits":{{"{long}":null}}}}"#),
        format!(r#"{{{task},"limits":{{"{long}":{{"value":"x"}}}}}}"#),
        format!(r#"{{{task},"max_completion_time":{{"nanoseconds":"{long}"}}}}"#),
    ] {
        let error = from_str::<v1::TaskInfo>(&text).unwrap_err().to_string();
        assert!(error.contains(&"ä".repeat(60)) && error.contains('…'), "{error}");
        assert!(error.len() < 300, "{} bytes", error.len());
    }
}

/// A message in a message in a message: read as deep as protobuf goes, then refused.
#[test]
fn what_is_too_deep_is_refused() {
    for depth in [1, 100, 101, 127, 128, 100_000] {
        let open = r#"{"value":"c","parent":"#.repeat(depth);
        let text = format!("{open}{{\"value\":\"c\"}}{}", "}".repeat(depth));
        let read = from_str::<v1::ContainerId>(&text);
        match depth {
            0..=100 => assert_eq!(to_string(&read.unwrap()), text),
            101..=126 => assert!(matches!(read, Err(JsonError::Field { .. })), "{read:?}"),
            _ => drop(read.unwrap_err()),
        }
        // The same of lists in lists.
        let text = format!(
            r#"{{"user":"u","name":"n","roles":{}"a"{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        );
        let read = from_str::<v1::FrameworkInfo>(&text);
        assert_eq!(read.is_ok(), depth < 127, "{depth}: {read:?}");
    }
}

/// Whatever is endless in them.
#[test]
fn long_numbers_and_many_keys_are_read() {
    let long = 1 << 16;
    let (zeros, nines) = ("0".repeat(long), "9".repeat(long));
    let read = |text: &str| from_str::<v1::value::Scalar>(text).map(|read| read.value).ok();
    for (number, wanted) in [
        (nines.clone(), None),
        (format!("0.{zeros}1"), Some(0.0)),
        (format!("0.{nines}"), Some(1.0)),
        (format!("-{nines}e-{long}"), Some(-1.0)),
        (format!("1e{nines}"), None),
        (format!("1e-{nines}"), Some(0.0)),
        (format!("0e{nines}"), Some(0.0)),
        (format!("1{zeros}e-{long}"), Some(1.0)),
    ] {
        assert_eq!(read(&format!(r#"{{"value":{number}}}"#)), wanted, "{}", &number[..9]);
        assert_eq!(read(&format!(r#"{{"value":"{number}"}}"#)), wanted, "{}", &number[..9]);
    }
    let pairs = r#""value":1,"x":2,"#.repeat(long / 16);
    assert_eq!(read(&format!(r#"{{{pairs}"value":3}}"#)), Some(3.0));
    let again = r#""name":"m","user":"v","roles":["b","c"],"id":{"value":"i"},"#.repeat(long / 64);
    let text = format!(r#"{{"name":"n","user":"u","roles":["a"],{again}"id":null}}"#);
    let info = from_str::<v1::FrameworkInfo>(&text).unwrap();
    assert_eq!((info.name.as_str(), info.user.as_str(), info.id), ("m", "v", None));
    assert_eq!(info.roles, ["b", "c"]);
}

#[test]
fn lists_of_messages_are_told_by_their_place() {
    let error = |text: &str| list_from_str::<v1::value::Range>(text).unwrap_err().to_string();
    let read = list_from_str::<v1::value::Range>(r#" [{"begin":1,"end":2},{"begin":3,"end":4}] "#);
    assert_eq!(read.unwrap()[1], v1::value::Range { begin: 3, end: 4 });
    assert_eq!(list_from_str::<v1::value::Range>("[]").unwrap(), []);
    assert_eq!(error(r#"[{"begin":1,"end":2},{"begin":3}]"#), "[1].end: is required and missing");
    assert_eq!(error(r#"[{"begin":1,"end":2},7]"#), "[1]: expected an object");
    assert_eq!(error("{}"), "Range: expected a list");
    assert_eq!(error("[{}"), "the text is not JSON");
}

#[test]
fn of_several_values_of_one_name_the_last_counts() {
    let text = r#"{"name":"a","roles":["x","y"],"user":"u","name":"bb","id":{"value":"i"},
        "roles":["z"],"id":null,"user":"v"}"#;
    let info: v1::FrameworkInfo = from_str(text).unwrap();
    assert_eq!((info.name.as_str(), info.user.as_str(), info.id), ("bb", "v", None));
    assert_eq!(info.roles, ["z"]);
}

/// What is written, to the letter: the reader may take more than that.
#[test]
fn values_are_written_to_the_letter() {
    let value = |value: f64| to_string(&v1::value::Scalar { value });
    assert_eq!(value(f64::INFINITY), r#"{"value":"Infinity"}"#);
    assert_eq!(value(f64::NEG_INFINITY), r#"{"value":"-Infinity"}"#);
    assert_eq!(value(f64::NAN), r#"{"value":"NaN"}"#);
    assert_eq!(value(0.1), r#"{"value":0.1}"#);
    let range = v1::value::Range { begin: 0, end: u64::MAX };
    assert_eq!(to_string(&range), r#"{"begin":0,"end":18446744073709551615}"#);
    let lowest = v1::DurationInfo { nanoseconds: i64::MIN };
    assert_eq!(to_string(&lowest), r#"{"nanoseconds":-9223372036854775808}"#);
    let labels = v1::Labels { labels: vec![] };
    assert_eq!(to_string(&labels), "{}");
    let secret = v1::secret::Value { data: vec![0, 255, 62] };
    assert_eq!(to_string(&secret), r#"{"data":"AP8+"}"#);
    let mut update = v1::scheduler::call::Acknowledge::default();
    assert_eq!(to_string(&update), r#"{"agent_id":{"value":""},"task_id":{"value":""},"uuid":""}"#);
    update.uuid = b"\xfb\xff".to_vec();
    assert!(to_string(&update).ends_with(r#""uuid":"+/8="}"#));
    // A number that no name has is not there, or, if something must be, the first.
    let capability = v1::framework_info::Capability { r#type: Some(99) };
    assert_eq!(to_string(&capability), "{}");
    let resource = v1::Resource { name: "x".to_owned(), r#type: 99, ..Default::default() };
    assert_eq!(to_string(&resource), r#"{"name":"x","type":"SCALAR"}"#);
}

#[test]
fn base64_is_read_as_mesos_reads_it() {
    let read = |text: &str| {
        let text = serde_json::json!({ "data": text }).to_string();
        from_str::<v1::secret::Value>(&text).map(|value| value.data)
    };
    // Ruby's, Python's, without padding, and Mesos' own example of an ACKNOWLEDGE.
    for (text, wanted) in [
        ("AAEC\n", &[0, 1, 2][..]),
        ("AA\r\nEC\tAw==\n", &[0, 1, 2, 3]),
        ("AAECAw", &[0, 1, 2, 3]),
        ("AAECAw=", &[0, 1, 2, 3]),
        ("AAECAx", &[0, 1, 2, 3]),
        ("AAEC=AAEC", &[0, 1, 2]),
        ("AAECA", &[0, 1, 2]),
        ("", &[]),
        ("====", &[]),
    ] {
        assert_eq!(read(text).unwrap(), wanted, "{text:?}");
    }
    assert_eq!(read("jhadf73jhakdlfha723adf").unwrap().len(), 16);
    for text in ["AA_-", "AAEC!", "AAEC ä"] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with("data: expected base64, got "), "{error}");
    }
}

#[test]
fn lists_are_read_as_mesos_reads_them() {
    let read = |rest: &str| {
        let text = format!(r#"{{"user":"u","name":"n",{rest}}}"#);
        from_str::<v1::FrameworkInfo>(&text)
    };
    assert_eq!(read(r#""roles":["a",null,"b"]"#).unwrap().roles, ["a", "b"]);
    assert_eq!(read(r#""roles":"a""#).unwrap().roles, ["a"]);
    assert_eq!(read(r#""roles":[["a"],"b",[]]"#).unwrap().roles, ["a", "b"]);
    assert_eq!(read(r#""roles":null"#).unwrap().roles, [""; 0]);
    let one = read(r#""capabilities":{"type":"MULTI_ROLE"}"#).unwrap();
    assert_eq!(one.capabilities.len(), 1);
    let error = read(r#""roles":["a",null,2]"#).unwrap_err().to_string();
    assert_eq!(error, "roles[2]: expected a string, got 2");
    // An unknown name in a list of enums is dropped.
    let text = r#"{"services":["FLYING_SERVICE","NODE_SERVICE"],"command":{}}"#;
    let container: v1::CsiPluginContainerInfo = from_str(text).unwrap();
    assert_eq!(container.services.len(), 1);
    // A map's entry without a value has an empty one, and a scalar must not be.
    let text = r#"{"volume_id":"v","node_stage_secrets":{"a":null},"volume_capability":
        {"access_mode":{"mode":"UNKNOWN"}}}"#;
    let volume: v1::volume::source::csi_volume::StaticProvisioning = from_str(text).unwrap();
    assert_eq!(volume.node_stage_secrets["a"], v1::Secret::default());
    let text =
        r#"{"name":"t","task_id":{"value":"t"},"agent_id":{"value":"a"},"limits":{"c":null}}"#;
    let error = from_str::<v1::TaskInfo>(text).unwrap_err().to_string();
    assert_eq!(error, "limits.c.value: is required and missing");
}

#[test]
fn numbers_are_read_as_mesos_reads_them() {
    let read = |text: &str| {
        let text = format!(r#"{{"nanoseconds":{text}}}"#);
        from_str::<v1::DurationInfo>(&text).map(|duration| duration.nanoseconds)
    };
    for (text, wanted) in [
        ("1234.5", 1234),
        ("-1234.9", -1234),
        ("1e18", 1_000_000_000_000_000_000),
        ("9e18", 9_000_000_000_000_000_000),
        (r#""1e3""#, 1000),
        (r#""5.0""#, 5),
        (r#"" 7 ""#, 7),
        (r#""-9223372036854775808""#, i64::MIN),
    ] {
        assert_eq!(read(text).expect(text), wanted, "{text}");
    }
    // Out of range, and what JSON does not call a number. Mesos takes the former.
    for text in ["1e19", "-1e19", r#""9223372036854775808""#, r#""+5""#, r#"".5""#, r#""""#, "true"]
    {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with("nanoseconds: expected a whole number"), "{error}");
    }
    let float = |text: &str| {
        from_str::<v1::value::Scalar>(&format!(r#"{{"value":{text}}}"#)).map(|s| s.value)
    };
    assert_eq!(float(r#""Infinity""#).unwrap(), f64::INFINITY);
    assert_eq!(float(r#""-Infinity""#).unwrap(), f64::NEG_INFINITY);
    assert!(float(r#""NaN""#).unwrap().is_nan());
    assert_eq!(float(r#""1e2""#).unwrap(), 100.0);
    for text in [r#""inf""#, r#""nan""#, r#""+5""#, r#""infinity""#, r#"".5""#] {
        float(text).expect_err(text);
    }
}
