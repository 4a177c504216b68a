use serde_json::json;

use super::*;

/// As the client of Spark 4.3 sends it.
pub(in crate::dispatcher) fn request(properties: serde_json::Value) -> CreateRequest {
    let mut all = json!({"spark.app.name": "pi", "spark.master": "spark://h:7077"});
    for (key, value) in properties.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "action": "CreateSubmissionRequest",
        "appArgs": ["20"],
        "appResource": "file:/opt/app.jar",
        "clientSparkVersion": "4.3.0",
        "environmentVariables": {"SPARK_USER": "ann", "SPARK_HOME": "/c", "SPARK_LOCAL_IP": "1"},
        "mainClass": "org.example.Pi",
        "sparkProperties": all,
    }))
    .unwrap()
}

fn read(properties: serde_json::Value) -> Result<Job, JobError> {
    Job::read(request(properties))
}

#[test]
fn a_job_with_nothing_said_gets_spark_s_defaults() {
    let job = read(json!({})).unwrap();
    assert_eq!((job.cpus, job.mem_mib), (1.0, 1024 + 384));
    assert_eq!((job.supervise, job.priority, job.docker), (false, 0, None));
    assert_eq!(job.main_class.as_deref(), Some("org.example.Pi"));
    assert_eq!(
        job.environment.into_iter().collect::<Vec<_>>(),
        [("SPARK_USER".into(), "ann".into())]
    );
}

#[test]
fn the_driver_s_size_is_its_heap_and_what_is_beside_it() {
    for (properties, mem) in [
        (json!({"spark.driver.memory": "8g"}), 8192 + 819),
        (json!({"spark.driver.memory": "512m", "spark.driver.memoryOverhead": "100"}), 612),
        (json!({"spark.driver.memory": "1g", "spark.driver.memoryOverhead": "1g"}), 2048),
        (json!({"spark.driver.memoryOverheadFactor": "0.5"}), 1536),
        (json!({"spark.driver.minMemoryOverhead": "500m"}), 1524),
    ] {
        assert_eq!(read(properties.clone()).unwrap().mem_mib, mem, "{properties}");
    }
    assert_eq!(read(json!({"spark.driver.cores": "2.5"})).unwrap().cpus, 2.5);
}

#[test]
fn what_is_wrong_is_named_with_what_would_do() {
    for (key, value, said) in [
        ("spark.driver.memory", "512", "512m or 2g"),
        ("spark.driver.memory", "much", "512m or 2g"),
        ("spark.driver.memoryOverhead", "x", "512m, or MiB"),
        ("spark.driver.cores", "0", "a number from 0.01"),
        ("spark.driver.cores", "NaN", "a number from 0.01"),
        ("spark.driver.supervise", "perhaps", "true or false"),
        ("spark.mezz.dispatcher.priority", "high", "a whole number"),
        ("spark.mezz.driver.constraints", "rack:", "constraint `rack:`"),
        ("spark.mezz.driver.labels", "team", "write KEY:VALUE"),
        ("spark.mezz.driver.uris", "a.txt", "an absolute path of the agents' machines"),
        ("spark.driver.resource.gpu.amount", "some", "a whole number"),
    ] {
        let error = read(json!({key: value})).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key} is `{value}`:")), "{error}");
        assert!(error.contains(said), "{error}");
    }
    let volumes = json!({
        "spark.mezz.driver.docker.image": "i", "spark.mezz.driver.docker.volumes": "/a:/b,c:/d",
    });
    assert!(read(volumes).unwrap_err().to_string().contains("is `c:/d`: write [HOST_PATH:]"));
    let long = json!({"spark.x": "x".repeat(200 << 10)});
    assert!(matches!(read(long), Err(JobError::TooLong(_))));
    let mut large = request(json!({}));
    large.app_args = Some(vec!["x".repeat(600 << 10)]);
    assert!(matches!(Job::read(large), Err(JobError::TooLarge(_))));
    assert_eq!(
        Job::read(CreateRequest::default()).unwrap_err().to_string(),
        "appResource is missing"
    );
}

#[test]
fn python_by_the_runner_s_class_is_python() {
    let runner = |args: &[&str]| {
        let mut request =
            request(json!({"spark.submit.pyFiles": "a.py", "spark.app.name": PYTHON_RUNNER}));
        request.main_class = Some(PYTHON_RUNNER.into());
        request.app_resource = Some(NO_RESOURCE.into());
        request.app_args = Some(args.iter().map(|a| (*a).to_owned()).collect());
        Job::read(request)
    };
    let job = runner(&["http://h/app.py", "", "1", "2"]).unwrap();
    assert_eq!((job.resource.as_str(), job.main_class), ("http://h/app.py", None));
    assert_eq!((job.name.as_str(), job.args.join(" ").as_str()), ("app.py", "1 2"));
    assert_eq!(job.properties["spark.submit.pyFiles"], "a.py");
    let job = runner(&["app.py", "b.py,c.py"]).unwrap();
    assert_eq!(job.properties["spark.submit.pyFiles"], "a.py,b.py,c.py");
    assert!(runner(&[]).unwrap_err().to_string().contains("the Python file"));
}

#[test]
fn docker_settings() {
    let job = read(json!({
        "spark.mezz.driver.docker.image": "spark:4",
        "spark.mezz.driver.docker.volumes": "/data:/d:ro, /scratch",
        "spark.mezz.driver.docker.network": "lan",
        "spark.mezz.driver.docker.forcePullImage": "true",
    }));
    let docker = job.unwrap().docker.unwrap();
    assert_eq!((docker.image.as_str(), docker.network.as_str()), ("spark:4", "lan"));
    assert!(docker.force_pull);
    let volume = |host: Option<&str>, container: &str, read_only| crate::docker::DockerVolume {
        host_path: host.map(Into::into),
        container_path: container.into(),
        read_only,
    };
    assert_eq!(
        docker.volumes,
        [volume(Some("/data"), "/d", true), volume(None, "/scratch", false)]
    );
}

#[test]
fn secrets_are_not_in_what_is_logged() {
    let job = read(json!({"spark.authenticate.secret": "hush"})).unwrap();
    assert!(!format!("{job:?}").contains("hush"));
}
