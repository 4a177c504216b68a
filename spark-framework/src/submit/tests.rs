use std::fs;

use super::*;

/// A made-up installation in a folder of its own.
struct Env {
    dir: tempfile::TempDir,
    options: SparkOptions,
    environment: Environment,
}

impl Env {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        spark(&at("spark"));
        fs::create_dir_all(at("mezz/bin")).unwrap();
        fs::write(at("mezz/bin/mezz-spark-bridge.jar"), "").unwrap();
        let options = SparkOptions {
            master: vec!["a:5050".into(), "b:5051".into()],
            spark_home: Some(at("spark")),
            bridge_jar: None,
            mezz_bin: at("mezz/bin/mezz"),
            mode: None,
        };
        Self { options, environment: Environment::default(), dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The arguments, with the temporary folder written as `@`.
    fn arguments(&self, user: &str) -> Result<String, String> {
        self.line(user).map(|(arguments, _)| arguments)
    }

    /// With the value of `SPARK_SUBMIT_OPTS`, if it is set.
    fn line(&self, user: &str) -> Result<(String, Option<String>), String> {
        let args: Vec<OsString> = user.split_whitespace().map(Into::into).collect();
        let home = locate::spark_home(&self.options, &self.environment, "spark-submit");
        let line = home
            .and_then(|home| {
                let jar = locate::bridge_jar(&self.options, &self.environment)?;
                let with_secret = |text: &str| Ok(format!("<{}>", text.trim()).into());
                arguments(&self.options, &home, &jar, &self.environment, &args, with_secret)
            })
            .map_err(|e| self.shorten(&e.to_string()))?;
        let words: Vec<_> =
            line.arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        let options = line.submit_options.map(|o| self.shorten(&o.to_string_lossy()));
        Ok((self.shorten(&words.join(" ")), options))
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "@")
    }
}

fn spark(home: &Path) {
    fs::create_dir_all(home.join("bin")).unwrap();
    fs::create_dir_all(home.join("jars")).unwrap();
    fs::create_dir_all(home.join("conf")).unwrap();
    fs::write(home.join("bin/spark-submit"), "").unwrap();
}

const BIN: &str = "--conf spark.mezz.bin=@/mezz/bin/mezz";
const JAR: &str = "@/mezz/bin/mezz-spark-bridge.jar";
const MASTER: &str = "--master spark-mezz://a:5050,b:5051";

#[test]
fn adds_its_own_between_sparks_options_and_the_application() {
    let env = Env::new();
    assert_eq!(
        env.arguments("--name x --conf k=v -v app.py --master y --conf z").unwrap(),
        format!(
            "{BIN} --name x --conf k=v -v {MASTER} --driver-class-path {JAR} app.py --master y \
             --conf z"
        )
    );
    assert_eq!(env.arguments("").unwrap(), format!("{BIN} {MASTER} --driver-class-path {JAR}"));
}

#[test]
fn a_mode_becomes_a_setting_after_the_users() {
    let mut env = Env::new();
    env.options.mode = Some(Mode::parse("fine").unwrap());
    assert_eq!(
        env.arguments("--conf spark.mezz.coarse=true app.py").unwrap(),
        format!(
            "{BIN} --conf spark.mezz.coarse=true {MASTER} --conf spark.mezz.coarse=false \
             --driver-class-path {JAR} app.py"
        )
    );
    env.options.mode = Some(Mode::parse("coarse").unwrap());
    assert!(env.arguments("app.py").unwrap().contains("--conf spark.mezz.coarse=true"));
    assert_eq!(
        Mode::parse("medium").unwrap_err().to_string(),
        "--mode is `medium`; it is coarse or fine"
    );
}

#[test]
fn so_many_executors_are_a_setting() {
    let said = Env::new().arguments("--num-executors 9 --conf spark.executor.instances=3 app.py");
    assert_eq!(
        said.unwrap(),
        format!(
            "{BIN} --num-executors 9 --conf spark.executor.instances=3 {MASTER} --conf \
             spark.executor.instances=9 --driver-class-path {JAR} app.py"
        )
    );
}

#[test]
fn takes_the_users_class_path_in() {
    let env = Env::new();
    let merged = |user: &str, theirs: &str| {
        assert_eq!(
            env.arguments(&format!("{user} app.py")).unwrap(),
            format!("{BIN} {user} {MASTER} --driver-class-path {theirs}:{JAR} app.py")
        );
    };
    merged("--driver-class-path x.jar:y.jar", "x.jar:y.jar");
    merged("--driver-class-path=x.jar", "x.jar");
    merged("--conf spark.driver.extraClassPath=z.jar", "z.jar");
    fs::write(
        env.at("spark/conf/spark-defaults.conf"),
        "# no\nspark.driver.extraClassPath  d.jar\n",
    )
    .unwrap();
    merged("--verbose", "d.jar");
    fs::write(env.at("p"), "spark.driver.extraClassPathX=no\nspark.driver.extraClassPath = p.jar")
        .unwrap();
    let file = env.at("p").display().to_string();
    let said = env.arguments(&format!("--properties-file {file} app.py")).unwrap();
    assert!(said.contains(&format!("--driver-class-path p.jar:{JAR}")), "{said}");
    let said = env.arguments("--properties-file /nowhere/at/all app.py").unwrap_err();
    assert_eq!(said, "cannot read /nowhere/at/all");
}

#[test]
fn an_archive_of_classes_is_used_if_it_is_there_and_can_fit() {
    let mut env = Env::new();
    assert_eq!(env.line("app.py").unwrap().1, None);
    fs::write(env.at("spark").join(ARCHIVE), "").unwrap();
    let options = "-XX:SharedArchiveFile=@/spark/mezz-classes.jsa -Xlog:cds*=off";
    let with = format!("--driver-class-path {JAR}:@/spark/jars/* app.py");
    let (said, given) = env.line("app.py").unwrap();
    assert!(said.ends_with(&with), "{said}");
    assert_eq!(given.as_deref(), Some(options));
    env.environment.variables.insert("SPARK_SUBMIT_OPTS".into(), "-Da=b".into());
    let (_, given) = env.line("--conf spark.mezz.classDataSharing=true app.py").unwrap();
    assert_eq!(given, Some(format!("{options} -Da=b")));

    // The plugin is where `mezz spark env` puts it.
    let file = env.at("spark/conf/spark-defaults.conf");
    fs::write(&file, format!("spark.driver.extraClassPath {}", env.at(&JAR[2..]).display()))
        .unwrap();
    assert!(env.line("app.py").unwrap().1.is_some());
    fs::remove_file(&file).unwrap();

    // Other classes come first, or it is not wanted.
    for user in [
        "--driver-class-path x.jar",
        "--conf spark.driver.extraClassPath=x.jar",
        "--conf spark.mezz.classDataSharing=False",
    ] {
        let (said, given) = env.line(&format!("{user} app.py")).unwrap();
        assert!(said.ends_with(&format!("{JAR} app.py")) && given.is_none(), "{said}");
    }
    let file = env.at("spark/conf/spark-defaults.conf");
    for line in ["spark.driver.extraClassPath d.jar", "spark.mezz.classDataSharing false"] {
        fs::write(&file, line).unwrap();
        assert_eq!(env.line("app.py").unwrap().1, None, "{line}");
    }
}

#[test]
fn a_secret_is_made_where_one_is_needed_and_none_is_given() {
    let env = Env::new();
    let file = |user: &str| {
        let all = env.arguments(&format!("{user} app.py")).unwrap();
        let (_, after) = all.split_once(&format!("{user} {MASTER} --properties-file <"))?;
        Some(after.split_once(&format!("> --driver-class-path {JAR} app.py"))?.0.to_owned())
    };
    const ON: &str = "--conf spark.authenticate=true";
    assert_eq!(file(ON).as_deref(), Some(""));
    assert_eq!(file("--conf spark.authenticate=false"), None);
    assert_eq!(file(&format!("{ON} --conf spark.authenticate.secret=mine")), None);
    // Settings of files go along, of both where both are read.
    fs::write(env.at("spark/conf/spark-defaults.conf"), "spark.authenticate true").unwrap();
    assert_eq!(file("-v").as_deref(), Some("spark.authenticate true"));
    assert_eq!(file("--conf spark.authenticate=false"), None);
    fs::write(env.at("p"), "spark.a = b").unwrap();
    let theirs = format!("--properties-file {}", env.at("p").display());
    assert_eq!(file(&theirs), None);
    let said = env.arguments(&format!("{theirs} {ON} app.py")).unwrap();
    assert!(said.contains("--properties-file @/p") && said.contains("<spark.a = b>"), "{said}");
    let said = env.arguments(&format!("{theirs} --load-spark-defaults app.py")).unwrap();
    assert!(said.contains("<spark.authenticate true\n\nspark.a = b>"), "{said}");
    fs::write(env.at("p"), "spark.authenticate.secret = mine").unwrap();
    assert_eq!(env.arguments(&format!("{theirs} {ON} app.py")).unwrap().matches('<').count(), 0);
}

#[test]
fn the_file_with_the_secret_is_read_by_its_path_as_often_as_wanted() {
    let file = SettingsFile::with_secret("spark.a b\\").unwrap();
    for _ in 0..2 {
        let text = fs::read_to_string(file.path()).unwrap();
        let secret = arguments::property(&text, "spark.authenticate.secret").unwrap();
        assert_eq!(
            (arguments::property(&text, "spark.a").as_deref(), secret.len()),
            (Some("b"), 64)
        );
    }
    // Spark asks whether it is an ordinary file.
    assert!(file.path().is_file());
}

#[test]
fn another_master_is_refused() {
    let mut env = Env::new();
    for (user, given) in [
        ("--master yarn app.py", "--master yarn"),
        ("--master=local[2] app.py", "--master local[2]"),
        ("--conf spark.master=spark://x:7077 app.py", "--conf spark.master=spark://x:7077"),
        ("--master spark-mezz://c:1 app.py", "--master spark-mezz://c:1"),
    ] {
        let said = env.arguments(user).unwrap_err();
        assert!(
            said.starts_with(&format!("{given} conflicts with the Mezz master spark-mezz://a:")),
            "{said}"
        );
    }
    let same = env.arguments(&format!("{MASTER} app.py")).unwrap();
    assert_eq!(same.matches("--master").count(), 1, "{same}");

    env.options.master.clear();
    let own = env.arguments("--master spark-mezz://c:1 app.py").unwrap();
    assert!(own.contains("--master spark-mezz://c:1 --driver-class-path"), "{own}");
    assert!(env.arguments("app.py").unwrap_err().starts_with("no master: give --master"));
    env.options.master = vec!["host".into()];
    assert_eq!(env.arguments("app.py").unwrap_err(), "master `host` is not host:port");
}

#[test]
fn cluster_mode_is_refused() {
    let env = Env::new();
    for user in ["--deploy-mode cluster app.py", "--conf spark.submit.deployMode=cluster app.py"] {
        assert!(
            env.arguments(user).unwrap_err().contains("by `mezz spark submit` and a dispatcher")
        );
    }
    env.arguments("--deploy-mode client app.py --deploy-mode cluster").unwrap();
}

#[test]
fn spark_is_found_where_it_may_be() {
    let mut env = Env::new();
    env.options.spark_home = None;
    let said = env.arguments("app.py").unwrap_err();
    assert!(
        said.contains("give --spark-home, set SPARK_HOME") && said.contains("@/mezz/.mezz/spark"),
        "{said}"
    );

    spark(&env.at("mezz/.mezz/spark/lib/python3.11/site-packages/pyspark"));
    env.arguments("app.py").unwrap();

    env.environment.variables.insert("SPARK_HOME".into(), env.at("gone").into());
    let said = env.arguments("app.py").unwrap_err();
    assert!(said.starts_with("SPARK_HOME is @/gone, which has no bin/spark-submit"), "{said}");
    env.options.spark_home = Some(env.at("spark"));
    env.arguments("app.py").unwrap();
}

#[test]
fn the_plugin_is_found_where_it_may_be() {
    let mut env = Env::new();
    fs::remove_file(env.at("mezz/bin/mezz-spark-bridge.jar")).unwrap();
    let said = env.arguments("app.py").unwrap_err();
    assert!(said.contains("set MEZZ_SPARK_BRIDGE") && said.contains("build.sh"), "{said}");
    fs::create_dir_all(env.at("mezz/share/mezz")).unwrap();
    fs::write(env.at("mezz/share/mezz/mezz-spark-bridge.jar"), "").unwrap();
    env.arguments("app.py").unwrap();
    env.environment.variables.insert("MEZZ_SPARK_BRIDGE".into(), env.at("no.jar").into());
    assert_eq!(
        env.arguments("app.py").unwrap_err(),
        "MEZZ_SPARK_BRIDGE is @/no.jar, which is no file"
    );
    env.options.bridge_jar = Some(env.at("spark/bin/spark-submit"));
    assert!(
        env.arguments("app.py").unwrap().contains("--driver-class-path @/spark/bin/spark-submit")
    );
}

#[test]
fn the_python_shell_finds_the_packages_beside_its_spark() {
    let mut environment = Environment::default();
    let home = Path::new("/v/lib/python3.11/site-packages/pyspark");
    let packages = "/v/lib/python3.11/site-packages";
    assert_eq!(python_path(home, &environment), Some(packages.into()));
    environment.variables.insert("PYTHONPATH".into(), "/mine".into());
    assert_eq!(python_path(home, &environment), Some(format!("{packages}:/mine").into()));
    assert_eq!(python_path(Path::new("/opt/spark"), &environment), None);
}

#[test]
fn the_history_server_shows_the_folder_that_is_said_or_the_one_of_the_settings() {
    let mut env = Env::new();
    fs::write(env.at("spark/bin/spark-class"), "").unwrap();
    fs::create_dir(env.at("my events")).unwrap();
    let start = |env: &Env, logs: Option<&str>, port| {
        history::prepare(&env.options, &env.environment, logs, port)
            .map(|server| {
                let opts = server
                    .command
                    .get_envs()
                    .find(|(name, _)| *name == "SPARK_HISTORY_OPTS")
                    .and_then(|(_, value)| Some(value?.to_string_lossy().into_owned()))
                    .unwrap();
                (env.shorten(&opts), server.address, env.shorten(&server.logs))
            })
            .map_err(|e| env.shorten(&e.to_string()))
    };
    let folder = env.at("my events").display().to_string();
    let (opts, address, logs) = start(&env, Some(&folder), Some(1234)).unwrap();
    assert_eq!(
        opts,
        "\"-Dspark.history.fs.logDirectory=file://@/my events\" \
         \"-Dspark.history.ui.port=1234\" \"-Dspark.port.maxRetries=0\""
    );
    assert_eq!((address.as_str(), logs.as_str()), ("http://127.0.0.1:1234", "file://@/my events"));

    fs::write(
        env.at("spark/conf/spark-defaults.conf"),
        format!("spark.eventLog.dir file:{folder}\nspark.history.ui.port 18081\n"),
    )
    .unwrap();
    env.environment.variables.insert("SPARK_HISTORY_OPTS".into(), "-Da=b".into());
    env.environment.variables.insert("SPARK_LOCAL_IP".into(), "::1".into());
    let (opts, address, logs) = start(&env, None, None).unwrap();
    assert!(opts.starts_with("-Da=b \"-Dspark.history"), "{opts}");
    assert_eq!((address.as_str(), logs.as_str()), ("http://[::1]:18081", "file://@/my events"));
    let elsewhere = start(&env, Some("hdfs://n/events"), Some(0)).unwrap();
    assert_eq!(elsewhere.2, "hdfs://n/events");
    assert!(!elsewhere.1.ends_with(":0"), "{}", elsewhere.1);

    let gone = start(&env, Some("/no/such/folder"), None).unwrap_err();
    assert!(gone.starts_with("--log-dir is /no/such/folder, which is no folder"), "{gone}");
    fs::write(env.at("spark/conf/spark-defaults.conf"), "spark.history.ui.port many\n").unwrap();
    let said = start(&env, Some(&folder), None).unwrap_err();
    assert!(said.starts_with("spark.history.ui.port is `many`"), "{said}");
}

#[test]
fn the_file_of_settings_keeps_what_is_there_and_can_be_written_again() {
    let mut env = Env::new();
    let compose = |env: &Env, folder: Option<&Path>| {
        env::compose(&env.options, &env.environment, folder).map(|it| env.shorten(&it.text))
    };
    let ours = format!(
        "{}spark.master spark-mezz://a:5050,b:5051\nspark.mezz.bin @/mezz/bin/mezz\n",
        "# Written by `mezz spark env`: Spark on Mezz.\n"
    );
    let end = "# End of what `mezz spark env` wrote.\n";
    assert_eq!(
        compose(&env, None).unwrap(),
        format!("{ours}spark.driver.extraClassPath {JAR}\n{end}")
    );
    // What Spark reads now, taken over into a folder of its own.
    fs::write(
        env.at("spark/conf/spark-defaults.conf"),
        "spark.eventLog.enabled true\nspark.driver.extraClassPath d.jar",
    )
    .unwrap();
    // What is only printed has nothing of it but what ours goes on from.
    assert_eq!(
        compose(&env, None).unwrap(),
        format!("{ours}spark.driver.extraClassPath d.jar:{JAR}\n{end}")
    );
    env.options.mode = Some(Mode::Fine);
    let folder = env.at("conf");
    let kept = "spark.eventLog.enabled true\nspark.driver.extraClassPath d.jar\n";
    let expected = format!(
        "{kept}{ours}spark.mezz.coarse false\nspark.driver.extraClassPath d.jar:{JAR}\n{end}"
    );
    assert_eq!(compose(&env, Some(&folder)).unwrap(), expected);
    // A second time it replaces its own.
    fs::create_dir(&folder).unwrap();
    let whole = env::compose(&env.options, &env.environment, Some(&folder)).unwrap();
    assert!(!whole.secret);
    fs::write(folder.join(DEFAULTS), whole.text).unwrap();
    assert_eq!(compose(&env, Some(&folder)).unwrap(), expected);
    // With authentication it makes a secret, a new one each time it is written.
    let secret = |env: &Env| {
        let made = env::compose(&env.options, &env.environment, Some(&folder)).unwrap();
        fs::write(folder.join(DEFAULTS), &made.text).unwrap();
        assert_eq!(made.text.matches("spark.authenticate.secret").count(), 1, "{}", made.text);
        arguments::property(&made.text, "spark.authenticate.secret").filter(|_| made.secret)
    };
    fs::write(folder.join(DEFAULTS), "spark.authenticate true\n").unwrap();
    let (one, other) = (secret(&env).unwrap(), secret(&env).unwrap());
    assert!(one.len() == 64 && one != other, "{one} {other}");
    assert!(!compose(&env, None).unwrap().contains("secret"), "nothing secret is printed");

    env.options.master = vec!["host".into()];
    assert!(compose(&env, None).is_err());
}
