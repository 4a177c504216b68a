//! What an application brings along, and what it keeps to itself: files, modules, a
//! Python of its own, classes of jars and packages; a secret that is made for it,
//! passwords, TLS. With real Apache Spark, which `./test.sh` installs.

#![allow(clippy::expect_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, FileServer, PATIENCE, Process, http_get, nothing_is_left, places_of,
    prepared, spark_command,
};
use tempfile::TempDir;

const SPARK_4: &str = "MEZZ_TEST_SPARK_HOME";

/// Short runs of much code: compiling it well costs more than it gives.
const FAST: [&str; 2] = [
    "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1",
    "spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1",
];

/// One executor and one task at a time fit on each agent; the driver is outside.
fn cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        ..Default::default()
    })
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

/// Two jars to be named, and one in a repository.
fn jars(folder: &Path) -> Result<()> {
    let classes = folder.join("classes");
    fs::create_dir(&classes)?;
    let mut javac = Command::new("javac");
    let jars = format!("{}/jars/*", prepared(SPARK_4)?.display());
    javac.args(["--release", "17", "-cp", &jars, "-d"]).arg(&classes);
    let package = folder.join("repository/org/example/thrice/1.0");
    fs::create_dir_all(&package)?;
    let all = [
        ("Twice", 2, folder.join("twice.jar")),
        ("Thrice", 3, package.join("thrice-1.0.jar")),
        ("Fourfold", 4, folder.join("fourfold.jar")),
    ];
    for (name, factor, _) in &all {
        let source = folder.join(format!("{name}.java"));
        let text = format!(
            "package org.example;\n\
             public class {name} implements org.apache.spark.sql.api.java.UDF1<Integer, Integer> {{\n\
               public Integer call(Integer n) {{ return n * {factor}; }}\n\
             }}\n"
        );
        fs::write(&source, text)?;
        javac.arg(source);
    }
    run(&mut javac)?;
    for (name, _, jar) in &all {
        let class = format!("org/example/{name}.class");
        run(Command::new("jar").arg("cf").arg(jar).arg("-C").arg(&classes).arg(class))?;
    }
    let pom = "<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId>\
               <artifactId>thrice</artifactId><version>1.0</version></project>";
    fs::write(package.join("thrice-1.0.pom"), pom)?;
    // This repository alone: Spark's own list is of the Internet.
    let settings = format!(
        "<ivysettings><settings defaultResolver=\"here\"/><resolvers>\
         <ibiblio name=\"here\" m2compatible=\"true\" root=\"file://{}\"/>\
         </resolvers></ivysettings>",
        folder.join("repository").display()
    );
    Ok(fs::write(folder.join("ivysettings.xml"), settings)?)
}

/// All that `apps/carried.py` uses, in a folder that is not the cluster's.
struct Luggage {
    folder: TempDir,
    /// Has a file and a jar that are not in the folder.
    server: FileServer,
}

impl Luggage {
    fn pack() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("luggage-").tempdir()?;
        fs::write(folder.path().join("words.txt"), "some words")?;
        jars(folder.path())?;
        let jar = fs::read(folder.path().join("fourfold.jar"))?;
        fs::remove_file(folder.path().join("fourfold.jar"))?;
        let server = FileServer::start(vec![
            ("/more-words.txt", b"and more".to_vec()),
            ("/fourfold.jar", jar),
        ])?;
        let luggage = Self { folder, server };
        luggage.zip()?;
        luggage.archive()?;
        Ok(luggage)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// A module.
    fn zip(&self) -> Result<()> {
        fs::write(self.at("carried_module.py"), "GREETING = 'hello'\n")?;
        let mut zip = Command::new(prepared("MEZZ_TEST_PYTHON")?);
        zip.args(["-m", "zipfile", "-c", "modules.zip", "carried_module.py"]);
        run(zip.current_dir(self.folder.path()))?;
        Ok(())
    }

    /// A Python environment as its own archivers make it: it works wherever it is
    /// unpacked.
    fn archive(&self) -> Result<()> {
        let env = self.at("env");
        fs::create_dir_all(env.join("bin"))?;
        fs::create_dir(env.join("lib"))?;
        fs::write(env.join("lib/in_archive.py"), "PLACE = 'in the archive'\n")?;
        let python = prepared("MEZZ_TEST_PYTHON")?;
        let script = format!(
            "#!/bin/sh\nlib=$(cd \"$(dirname \"$0\")/../lib\" && pwd) || exit\n\
             export PYTHONPATH=\"$lib:$PYTHONPATH\"\nexec {} \"$@\"\n",
            python.display()
        );
        let program = env.join("bin/python");
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let mut tar = Command::new("tar");
        run(tar.arg("-C").arg(&env).arg("-czf").arg(self.at("env.tar.gz")).args(["bin", "lib"]))?;
        Ok(())
    }

    /// The options that bring it all along: from this machine by a plain path and by `file:`,
    /// from every machine by `local:`, and from elsewhere by `http:`.
    fn options(&self) -> Result<Vec<String>> {
        let python = prepared("MEZZ_TEST_PYTHON")?;
        let web = format!("http://{}", self.server.address);
        let mut all = vec![
            format!("--files=file://{},{web}/more-words.txt", self.text("words.txt")),
            format!("--py-files={}", self.text("modules.zip")),
            format!("--archives={}#env", self.text("env.tar.gz")),
            format!("--jars=local:{},{web}/fourfold.jar", self.text("twice.jar")),
            "--packages=org.example:thrice:1.0".to_owned(),
        ];
        for setting in [
            format!("spark.jars.ivySettings={}", self.text("ivysettings.xml")),
            format!("spark.jars.ivy={}", self.text("ivy")),
            "spark.pyspark.python=./env/bin/python".to_owned(),
            format!("spark.pyspark.driver.python={}", python.display()),
            "spark.hadoop.ipc.client.connect.max.retries=0".to_owned(),
        ] {
            all.extend(["--conf".to_owned(), setting]);
        }
        Ok(all)
    }

    /// A key with its certificate for 127.0.0.1, and the settings that use it for whatever
    /// is said, and for the driver's pages if so asked.
    fn settings(&self, pages: bool) -> Result<()> {
        let store = self.text("keys.p12");
        let mut keytool = Command::new("keytool");
        keytool
            .args(["-genkeypair", "-alias", "mezz", "-keyalg", "EC", "-groupname", "secp256r1"])
            .args(["-dname", "CN=mezz-test", "-ext", "san=ip:127.0.0.1", "-validity", "2"])
            .args(["-storetype", "PKCS12", "-storepass", "hush-store", "-keystore", &store]);
        run(&mut keytool)?;
        // What is on takes the rest from `spark.ssl`, if that is on.
        let text = format!(
            "spark.ssl.enabled true\nspark.ssl.rpc.enabled true\nspark.ssl.ui.enabled {pages}\n\
             spark.authenticate true\nspark.hadoop.some.token hush-token\n\
             spark.ssl.keyStore {store}\nspark.ssl.keyStorePassword hush-store\n\
             spark.ssl.keyPassword hush-store\n\
             spark.ssl.trustStore {store}\nspark.ssl.trustStorePassword hush-store\n"
        );
        Ok(fs::write(self.at("private.conf"), text)?)
    }
}

/// What follows this word on a line of its own.
fn said<'a>(text: &'a str, word: &str) -> Result<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    lines.next().with_context(|| format!("no {word}: {text}"))
}

/// Who answers there by TLS.
fn owner(address: &str) -> Result<String> {
    run(Command::new("keytool").args(["-printcert", "-sslserver", address]))
}

/// Starts the application, and looks at it while it runs; `look` is for the rest.
fn carried(mode: &str, pages: bool, look: impl FnOnce(&Cluster, &str) -> Result<()>) -> Result<()> {
    let cluster = cluster()?;
    let luggage = Luggage::pack()?;
    luggage.settings(pages)?;
    let events = cluster.folder().join("events");
    fs::create_dir(&events)?;
    let mut command = spark_command(&cluster, SPARK_4, &["submit", "--mode", mode])?;
    command.args(luggage.options()?).arg("--properties-file").arg(luggage.at("private.conf"));
    for setting in [
        FAST[0],
        FAST[1],
        "spark.executor.memory=512m",
        "spark.cores.max=2",
        "spark.ui.port=0",
        "spark.eventLog.enabled=true",
        "spark.eventLog.compress=false",
        &format!("spark.eventLog.dir=file://{}", events.display()),
    ] {
        command.args(["--conf", setting]);
    }
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/carried.py"));
    command.arg(luggage.folder.path());
    let mut job = Process::start("carried", cluster.folder(), command)?;
    job.wait_for_output("\nid ", PATIENCE * 3)?;
    let stdout = job.stdout();
    for (word, right) in [
        ("found", "[('hello', 'in the archive', 'some words and more')]"),
        ("sum", "1999000"),
        ("classes", "Row(sum(two)=90, sum(three)=135, sum(four)=180)"),
        ("hdfs", "True"),
    ] {
        ensure!(said(&stdout, word)? == right, "{word}: {stdout}\n{}", job.stderr());
    }
    look(&cluster, &stdout)?;

    let secret = fs::read_to_string(luggage.at("secret"))?;
    ensure!(secret.len() == 64 && secret.bytes().all(|b| b.is_ascii_hexdigit()), "{secret}");
    let words = [secret.as_str(), "hush-store", "hush-token"];
    let running = places_of(&cluster, &words)?;
    ensure!(running.is_empty(), "secrets are seen: {running:#?}");
    fs::write(luggage.at("go"), "")?;
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    let ended = places_of(&cluster, &words)?;
    ensure!(ended.is_empty(), "secrets are seen afterwards: {ended:#?}");
    let logged = places_of(&cluster, &["spark.hadoop.some.token"])?;
    ensure!(logged.iter().any(|place| place.contains("/events/")), "no event log: {logged:?}");
    cluster.stop()
}

/// And with TLS wherever Spark has it.
#[test]
fn an_application_brings_its_files_and_speaks_tls_in_coarse_mode() -> Result<()> {
    carried("coarse", true, |cluster, stdout| {
        let frameworks = cluster.list("frameworks", &[])?;
        let page = frameworks[0]["webui_url"].as_str().context("the address of its pages")?;
        let page = page.strip_prefix("https://").with_context(|| format!("{page} is not https"))?;
        for address in [page, &format!("127.0.0.1:{}", said(stdout, "port")?)] {
            let owner = owner(address)?;
            ensure!(owner.contains("CN=mezz-test"), "{address}: {owner}");
        }
        Ok(())
    })
}

/// There, settings come to executors by the cluster: passwords too, and are not seen.
#[test]
fn an_application_brings_its_files_and_speaks_tls_in_fine_mode() -> Result<()> {
    carried("fine", false, |cluster, stdout| {
        let frameworks = cluster.list("frameworks", &[])?;
        let page = frameworks[0]["webui_url"].as_str().context("the address of its pages")?;
        let path = format!("api/v1/applications/{}/environment", said(stdout, "id")?);
        let (status, text) = http_get(&format!("{page}/{path}"))?;
        ensure!(status == 200 && text.contains("spark.authenticate.secret"), "{status} {text}");
        for word in ["hush-store", "hush-token"] {
            ensure!(!text.contains(word), "{word} is in {text}");
        }
        let owner = owner(&format!("127.0.0.1:{}", said(stdout, "port")?))?;
        ensure!(owner.contains("CN=mezz-test"), "{owner}");
        Ok(())
    })
}

/// A shell, which reads what is typed until its end.
fn shell(cluster: &Cluster, words: &[&str], typed: &str) -> Result<String> {
    let mut command = spark_command(cluster, SPARK_4, words)?;
    for setting in [
        FAST[0],
        FAST[1],
        "spark.executor.memory=512m",
        "spark.cores.max=1",
        "spark.ui.enabled=false",
        "spark.authenticate=true",
        "spark.sql.catalogImplementation=in-memory",
    ] {
        command.args(["--conf", setting]);
    }
    // Python takes a file for a program unless it is told otherwise.
    command.env("PYSPARK_DRIVER_PYTHON_OPTS", "-i");
    let mut shell = Process::start_with_input(words[0], cluster.folder(), command, typed)?;
    let end = shell.wait(PATIENCE * 2)?.success()?;
    nothing_is_left(cluster)?;
    Ok(end.stdout)
}

/// Each with a secret of its own, which in the Python shell takes another way.
#[test]
fn shells_run_what_is_typed_in_either_mode() -> Result<()> {
    let cluster = cluster()?;
    let typed = "print('typed', sc.parallelize(range(10), 2).map(lambda i: i * 2).sum(), \
                 len(sc.getConf().get('spark.authenticate.secret')))\n";
    let said = shell(&cluster, &["pyspark", "--mode", "fine"], typed)?;
    ensure!(said.contains("typed 90 64"), "{said}");
    let typed = "SELECT 'typed', sum(id * 2) FROM range(10);\n";
    let said = shell(&cluster, &["sql", "--mode", "coarse"], typed)?;
    ensure!(said.contains("typed\t90"), "{said}");
    cluster.stop()
}
