//! What Mesos wrote of the same things is the measure: `tests/data/pages.json` has
//! what a real master answered in both forms.

use std::time::Duration;

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, Value as Reflected};
use serde_json::{Value, json};

use super::*;
use crate::{json::from_value, resources::Resources, v1};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../tests/data/pages.json")).unwrap()
}

fn text(page: impl Serialize) -> String {
    serde_json::to_string(&page).unwrap()
}

fn resources(value: &Value) -> Vec<v1::Resource> {
    value.as_array().unwrap().iter().map(|r| from_value(r).unwrap()).collect()
}

/// Also the order of keys.
#[test]
fn a_task_is_written_as_mesos_writes_it() {
    let golden = golden();
    let task: v1::Task = from_value(&golden["task"]["v1"]).unwrap();
    assert_eq!(text(TaskPage(&task)), golden["task"]["page"].to_string());
}

#[test]
fn a_task_shows_what_it_has_and_no_more() {
    let text_of = r#"{"name":"n","task_id":{"value":"t"},"framework_id":{"value":"f"},
        "agent_id":{"value":"a"},"state":"TASK_RUNNING","user":"u","executor_id":{"value":"e"},
        "resources":[{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":5,"end":7}]}},
            {"name":"cpus","type":"SCALAR","scalar":{"value":0.5},"revocable":{}},
            {"name":"zones","type":"SET","set":{"item":["b","a"]}}],
        "limits":{"cpus":{"value":"Infinity"}},
        "health_check":{"type":"COMMAND","command":{"value":"x","environment":{"variables":[
            {"name":"PASSWORD","type":"SECRET","secret":{"type":"VALUE","value":{"data":"c2VjcmV0"}}}]}}},
        "container":{"type":"MESOS","mesos":{"image":{"type":"DOCKER","docker":{"name":"i",
            "config":{"type":"VALUE","value":{"data":"c2VjcmV0"}}}}}},
        "statuses":[{"task_id":{"value":"t"},"state":"TASK_RUNNING","healthy":false,"timestamp":1.5,
            "data":"c2VjcmV0","labels":{"labels":[{"key":"k"}]}}]}"#;
    let mut task: v1::Task = crate::json::from_str(text_of).unwrap();
    hide_in_task(&mut task);
    let page = serde_json::to_value(TaskPage(&task)).unwrap();
    assert_eq!(
        page["resources"],
        json!({"disk": 0.0, "mem": 0.0, "gpus": 0.0, "cpus": 0.0, "cpus_revocable": 0.5,
            "ports": "[5-7]", "zones": "{a, b}"})
    );
    assert_eq!(page["limits"], json!({"cpus": "Infinity"}));
    assert_eq!((&page["role"], &page["user"]), (&json!("*"), &json!("u")));
    assert_eq!(
        page["statuses"],
        json!([{"state": "TASK_RUNNING", "timestamp": 1.5, "labels": [{"key": "k"}],
            "healthy": false}])
    );
    assert_eq!(page["container"]["mesos"]["image"]["docker"]["name"], "i");
    for shown in [page.to_string(), crate::json::to_string(&task)] {
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }
}

#[test]
fn resources_have_the_forms_of_mesos() {
    let golden = golden();
    let total = resources(&golden["agent"]["v1"]["total_resources"]);
    assert_eq!(
        serde_json::to_value(ResourcesPage::of_wire(&total)).unwrap(),
        golden["agent"]["page"]["resources"]
    );
    let parsed = Resources::from_proto(&total).unwrap();
    assert_eq!(text(ResourcesPage::of(&parsed)), text(ResourcesPage::of_wire(&total)));
    // Without the role, as an agent describes itself: the operator's form adds it.
    let plain = resources(&golden["agent"]["v1"]["agent_info"]["resources"]);
    assert_eq!(text(Protos(&full(plain))), text(Protos(&total)));
    assert_eq!(text(Reserved::of(&parsed).page()), "{}");

    let held = Resources::from_proto(&resources(&golden["role_resources"]["v1"])).unwrap();
    assert_eq!(
        serde_json::to_value(QuantitiesPage::of(&held)).unwrap(),
        golden["role_resources"]["page"]
    );
    let ports = Resources::parse("cpus:0.1;cpus(r):0.2;ports:[1-3]").unwrap();
    assert_eq!(text(QuantitiesPage::of(&ports)), r#"{"cpus":0.3,"ports":3.0}"#);
    let apart = Reserved::of(&ports);
    assert_eq!(text(apart.page()), r#"{"r":{"disk":0.0,"mem":0.0,"gpus":0.0,"cpus":0.2}}"#);
    assert_eq!(apart.full()["r"][0].role(), "r");
    assert_eq!(apart.unreserved.to_string(), "cpus:0.1; ports:[1-3]");
}

#[test]
fn attributes_are_numbers_or_text() {
    let attributes = crate::attributes::parse("rack:r1;n:2.5;ports:[1-5];rack:r2").unwrap();
    assert_eq!(text(AttributesPage(&attributes)), r#"{"rack":"r1","n":2.5,"ports":"[1-5]"}"#);
}

struct Roles<'a>(&'a v1::FrameworkInfo);

impl Serialize for Roles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        FrameworkNames(self.0).write(&mut map)?;
        map.end()
    }
}

#[test]
fn frameworks_have_roles_or_a_role() {
    for framework in golden()["frameworks"].as_array().unwrap() {
        let info: v1::FrameworkInfo = from_value(&framework["v1"]).unwrap();
        assert_eq!(json!(capability_names(&info)), framework["capabilities"]);
        assert_eq!(serde_json::to_value(Roles(&info)).unwrap(), framework["roles"]);
    }
}

#[test]
fn an_executor_is_shown_without_its_secrets() {
    let info: v1::ExecutorInfo = crate::json::from_str(
        r#"{"executor_id":{"value":"e"},"framework_id":{"value":"f"},"name":"n","data":"c2VjcmV0",
        "type":"CUSTOM","resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1},
            "allocation_info":{"role":"r"}}],
        "command":{"value":"run","uris":[{"value":"https://me:pw@host/a.tgz","executable":true}],
            "environment":{"variables":[{"name":"A","value":"1"},
                {"name":"B","type":"SECRET","value":"pw"}]}}}"#,
    )
    .unwrap();
    let page = ExecutorPage { info: &info, agent: Some("S0") };
    assert_eq!(
        text(page),
        concat!(
            r#"{"executor_id":"e","name":"n","framework_id":"f","command":{"value":"run","argv":[],"#,
            r#""environment":{"variables":[{"name":"A","type":"VALUE","value":"1"},"#,
            r#"{"name":"B","type":"SECRET"}]},"#,
            r#""uris":[{"value":"https://host/a.tgz","executable":true}]},"#,
            r#""resources":{"disk":0.0,"mem":0.0,"gpus":0.0,"cpus":1.0},"role":"r","#,
            r#""type":"CUSTOM","slave_id":"S0"}"#
        )
    );
    let mut shown = info;
    hide_in_executor(&mut shown);
    let shown = crate::json::to_string(&shown);
    assert!(!shown.contains("pw") && !shown.contains("c2VjcmV0"), "{shown}");
}

#[test]
fn a_callback_is_a_name() {
    let script = Jsonp::new("angular.callbacks._0").unwrap().wrap("{\"a\":\"\u{2028}\"}");
    assert_eq!(script, r#"angular.callbacks._0({"a":"\u2028"});"#);
    let [before, after] = Jsonp::new("f").unwrap().around();
    let json = escaped("{\"a\":\"\u{2028}é\u{2027}\u{2029}\"}".into());
    let json = String::from_utf8(json).unwrap();
    assert_eq!(before + &json + &after, "f({\"a\":\"\\u2028é\u{2027}\\u2029\"});");
    for bad in ["", "alert(1)//", "a;b", "0a", "a b", "é", &"a".repeat(MAX_CALLBACK + 1)] {
        assert_eq!(Jsonp::new(bad), Err(BadCallback), "{bad}");
    }
}

#[test]
fn durations_read_and_write_as_mesos() {
    for (secs, wanted) in [
        (0.0, "0ns"),
        (15.0, "15secs"),
        (600.0, "10mins"),
        (1.5, "1500ms"),
        (1_209_600.0, "2weeks"),
        (90.0, "90secs"),
    ] {
        assert_eq!(duration_text(Duration::from_secs_f64(secs)), wanted);
        assert_eq!(parse_duration(wanted), Ok(Duration::from_secs_f64(secs)));
    }
    assert_eq!(parse_duration("1.5hrs"), Ok(Duration::from_secs(5400)));
    for bad in ["", "5", "secs", "-1secs", "1year", "1e99weeks", "NaNsecs"] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn version_has_the_keys_and_types_of_mesos() {
    let golden = golden()["version"].clone();
    let page = serde_json::to_value(Version::of_build()).unwrap();
    for (key, value) in golden.as_object().unwrap() {
        // The commit only if the build told it.
        if key != "git_sha" {
            assert_eq!(page[key].is_string(), value.is_string(), "{key}");
            assert_eq!(page[key].is_f64(), value.is_f64(), "{key}");
        }
    }
}

#[test]
fn metrics_are_one_sorted_object() {
    let all = [("b/x".to_owned(), 1.0), ("a".to_owned(), 0.5), ("c".to_owned(), f64::NAN)];
    assert_eq!(snapshot(&all.into()), r#"{"a":0.5,"b/x":1.0}"#);
    let machine = system_metrics("0.5 1.5 2.5 1/2 3", "MemTotal:  2 kB\nMemFree: 1 kB\n", 4);
    assert_eq!(machine.map(|(_, value)| value), [4.0, 2.5, 0.5, 1.5, 1024.0, 2048.0]);
    assert_eq!(system_metrics("", "", 1).map(|(_, value)| value)[1..], [0.0; 5]);
}

#[test]
fn passwords_in_uris_are_hidden_however_they_are_written() {
    for (uri, shown) in [
        ("https://u:p@host/x", "https://host/x"),
        ("https://u:pa/ss@host/x", "https://host/x"),
        ("https://u:p#w@host", "https://host"),
        ("hdfs://name:9000/a@b", "hdfs://name:9000/a@b"),
        ("http://[::1]/a@b", "http://[::1]/a@b"),
        ("https://me:pa@ss@h:1/p?token=1#x", "https://h:1/p?…"),
        ("/local/a@b", "/local/a@b"),
        ("/local/a?b", "/local/a?b"),
        ("https://h/x?X-Sig=1#sha256=ab", "https://h/x?…"),
        ("https://u:p?w@h:1/x?token=1", "https://h:1/x?…"),
        ("https://h/x#sha256=ab", "https://h/x#sha256=ab"),
    ] {
        assert_eq!(super::without_credentials(uri), shown, "{uri}");
    }
}

#[test]
fn what_docker_is_told_beside_the_image_is_hidden() {
    let parameter =
        |key: &str, value: &str| v1::Parameter { key: key.to_owned(), value: value.to_owned() };
    let parameters = v1::Parameters { parameter: vec![parameter("access_key", "hidden")] };
    let source = v1::volume::Source {
        docker_volume: Some(v1::volume::source::DockerVolume {
            driver_options: Some(parameters),
            ..Default::default()
        }),
        ..Default::default()
    };
    let container = v1::ContainerInfo {
        docker: Some(v1::container_info::DockerInfo {
            parameters: vec![parameter("env", "KEY=hidden"), parameter("memory", "1=g")],
            ..Default::default()
        }),
        volumes: vec![v1::Volume { source: Some(source), ..Default::default() }],
        ..Default::default()
    };
    let mut task = v1::Task { container: Some(container.into()), ..Default::default() };
    super::hide_in_task(&mut task);
    let shown = format!("{task:?}");
    assert!(!shown.contains("hidden"), "{shown}");
    for kept in ["KEY=", "access_key", "1=g"] {
        assert!(shown.contains(kept), "{kept}: {shown}");
    }
}

#[test]
fn a_link_of_a_framework_keeps_its_query_and_loses_its_password() {
    let url = Some("https://u:p@host/ui?app=1".to_owned());
    let mut framework = v1::FrameworkInfo { webui_url: url, ..Default::default() };
    super::hide_in_framework(&mut framework);
    assert_eq!(framework.webui_url(), "https://host/ui?app=1");
}

/// Whatever field of the message a `Secret` may stand in has one.
fn with_secrets(of: &MessageDescriptor, depth: u32) -> Option<DynamicMessage> {
    let mut out = DynamicMessage::new(of.clone());
    if of.full_name() == "mesos.v1.Secret" {
        let value = v1::secret::Value { data: b"hush".to_vec() };
        let secret = v1::Secret { value: Some(value), ..Default::default() };
        out.transcode_from(&secret).unwrap();
        return Some(out);
    }
    let mut has_one = false;
    // Types hold themselves; and nobody looks deeper.
    for field in of.fields().filter(|_| depth < 12) {
        let Kind::Message(inner) = field.kind() else { continue };
        let inner = match field.is_map() {
            true => match inner.map_entry_value_field().kind() {
                Kind::Message(inner) => inner,
                _ => continue,
            },
            false => inner,
        };
        let Some(value) = with_secrets(&inner, depth + 1).map(Reflected::Message) else { continue };
        has_one = true;
        let value = match (field.is_map(), field.is_list()) {
            (true, _) => Reflected::Map([(MapKey::String("key".to_owned()), value)].into()),
            (_, true) => Reflected::List(vec![value]),
            _ => value,
        };
        out.set_field(&field, value);
    }
    has_one.then_some(out)
}

#[test]
fn no_secret_is_shown_wherever_it_stands() {
    fn hidden<M: Message + Name + Default>(hide: fn(&mut M)) {
        let of = crate::json::descriptors().get_message_by_name(&M::full_name()).unwrap();
        let mut message: M = with_secrets(&of, 0).unwrap().transcode_to().unwrap();
        let secret = "aHVzaA==";
        let shown = crate::json::to_string(&message);
        assert!(shown.matches(secret).count() >= 5, "{shown}");
        hide(&mut message);
        let shown = crate::json::to_string(&message);
        assert!(!shown.contains(secret), "{shown}");
    }
    hidden::<v1::Task>(hide_in_task);
    hidden::<v1::ExecutorInfo>(hide_in_executor);
}
