//! Where the processes of an executor run: straight on the agent's machine or in a
//! container of an image, with an installed Spark or one that is fetched.
//!
//! Where Spark and Java are is known to the driver, unless they are in an image or
//! among what the agent fetches: then a shell finds them out before it becomes the
//! executor.

use std::{collections::BTreeSet, time::Duration};

use mezz_proto::v1::{self, command_info::Uri};

use super::RegisterError;
use crate::{
    docker::{Docker, DockerError},
    protocol::Register,
    shell::quote,
};

/// What the settings of executors' containers begin with.
const DOCKER: &str = "spark.mezz.executor.docker.";
/// Where a Spark to be fetched is.
const SPARK_URI: &str = "spark.executor.uri";
/// More to be fetched.
const URIS: &str = "spark.mezz.uris";

/// Stand for Spark's folder and for Java's program in commands of executors that
/// have to find them.
const HOME: &str = "{{SPARK_HOME}}";
const JAVA: &str = "{{JAVA}}";

/// Pulling an image or fetching Spark may take so long: agents themselves give up
/// what makes no progress for five minutes.
const SLOW_LAUNCH: Duration = Duration::from_secs(15 * 60);

/// Where the image's own working directory would be.
const IN_SANDBOX: &str = "cd \"$MESOS_SANDBOX\" && ";
/// In an image, by its own variable unless the application has set it.
const HOME_OF_IMAGE: &str = ": \"${SPARK_HOME:?is not set in the image: set \
                             spark.mezz.executor.home to the folder of Spark there}\" && ";
/// Among what was fetched, whatever the archive's folder is called.
const HOME_OF_ARCHIVE: &str = "SPARK_HOME= && \
    for mezz_file in \"$MESOS_SANDBOX\"/*/bin/spark-class; do SPARK_HOME=${mezz_file%/bin/*}; done && \
    if [ ! -f \"$SPARK_HOME/bin/spark-class\" ]; then \
    echo 'spark.executor.uri: no folder with bin/spark-class was in it' >&2; exit 1; fi && \
    export SPARK_HOME && ";

/// Where executors of an application run.
pub(super) struct Place {
    docker: Option<Docker>,
    uris: Vec<Uri>,
    fetches_spark: bool,
}

impl Place {
    /// As the settings say.
    ///
    /// # Errors
    /// [`RegisterError`] says which setting is wrong.
    pub(super) fn read(register: &Register) -> Result<Self, RegisterError> {
        let named: Vec<(String, &str)> = register
            .docker
            .iter()
            .map(|(name, value)| (format!("{DOCKER}{name}"), value.as_str()))
            .collect();
        let docker = Docker::read(DOCKER, named.iter().map(|(k, v)| (k.as_str(), *v)))?;
        if docker.as_ref().is_some_and(|d| d.network == "none") {
            return Err(RegisterError::Docker(DockerError {
                key: format!("{DOCKER}network"),
                value: "none".to_owned(),
                wanted: "an executor has to reach its driver; write host, bridge or the name of a \
                         network"
                    .to_owned(),
            }));
        }
        let spark = register.spark_uri.iter().map(|uri| (SPARK_URI, uri.as_str()));
        let others = register.uris.iter().flat_map(|list| list.split(','));
        let mut uris: Vec<Uri> = Vec::new();
        let mut seen = BTreeSet::new();
        for (setting, uri) in spark.chain(others.map(|uri| (URIS, uri))) {
            let uri = uri.trim();
            if uri.is_empty() || !seen.insert(uri) {
                continue;
            }
            if !is_fetchable(uri) {
                return Err(RegisterError::Uri { setting, uri: uri.to_owned() });
            }
            uris.push(Uri {
                value: uri.to_owned(),
                cache: Some(register.fetch_cache),
                ..Default::default()
            });
        }
        let fetches_spark = register.spark_uri.as_ref().is_some_and(|uri| !uri.trim().is_empty());
        Ok(Self { docker, uris, fetches_spark })
    }

    /// Whether executors are in containers of an engine.
    pub(super) fn needs_engine(&self) -> bool {
        self.docker.is_some()
    }

    /// How long an executor's start may take, if not as long as others.
    pub(super) fn launch_timeout(&self) -> Option<Duration> {
        (self.docker.is_some() || !self.uris.is_empty()).then_some(SLOW_LAUNCH)
    }

    /// The host that an executor is known by; empty where only it can find out.
    pub(super) fn hostname<'a>(&self, of_agent: &'a str) -> &'a str {
        let own = self.docker.as_ref().is_some_and(Docker::has_own_network);
        if own { "" } else { of_agent }
    }

    /// The command that an agent starts.
    pub(super) fn command(&self, argv: Vec<String>) -> v1::CommandInfo {
        let by_shell = self.script(&argv);
        v1::CommandInfo {
            value: by_shell.clone().or_else(|| argv.first().cloned()),
            shell: Some(by_shell.is_some()),
            arguments: if by_shell.is_some() { Vec::new() } else { argv },
            uris: self.uris.clone(),
            user: self.docker.as_ref().and_then(|d| d.user.clone()),
            ..Default::default()
        }
    }

    /// The argv of a process that another one of the executor starts.
    pub(super) fn argv(&self, argv: Vec<String>) -> Vec<String> {
        match self.script(&argv) {
            Some(script) => vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
            None => argv,
        }
    }

    /// What it runs in.
    pub(super) fn container(&self) -> Option<v1::ContainerInfo> {
        self.docker.as_ref().map(Docker::container)
    }

    fn script(&self, argv: &[String]) -> Option<String> {
        if self.docker.is_none() && !self.fetches_spark {
            return None;
        }
        let mut script = IN_SANDBOX.to_owned();
        if argv.iter().any(|word| word.contains(HOME)) {
            script.push_str(if self.fetches_spark { HOME_OF_ARCHIVE } else { HOME_OF_IMAGE });
        }
        script.push_str("exec");
        for word in argv {
            script.push(' ');
            script.push_str(
                &quote(word)
                    .replace(HOME, "'\"$SPARK_HOME\"'")
                    .replace(JAVA, "'\"${JAVA_HOME:+$JAVA_HOME/bin/}java\"'"),
            );
        }
        Some(script)
    }
}

/// Whether it is a URI, or a path that does not depend on where an agent works.
pub(crate) fn is_fetchable(uri: &str) -> bool {
    uri.contains("://") || uri.starts_with('/')
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::protocol::FromDriver;

    fn register(more: &str) -> Register {
        let text = format!(
            r#"{{"t":"register","v":1,"mode":"coarse","masters":["m:5050"],"app_name":"words",
            "user":"ann","spark":"4.3.0","command":["java"]{more}}}"#
        );
        let FromDriver::Register(r) = FromDriver::parse(text.as_bytes()).unwrap() else {
            panic!("not a register")
        };
        *r
    }

    fn place(more: &str) -> Place {
        Place::read(&register(more)).unwrap()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    /// What a shell makes of it, with these variables.
    fn run(script: &str, env: &[(&str, &str)]) -> (String, String) {
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().env("PATH", "/usr/bin:/bin").args(["-c", script]);
        let output = shell.envs(env.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    const ARGV: [&str; 4] = ["printf", "%s|", "it's {{SPARK_HOME}}/jars/*", "{{JAVA}}"];

    #[test]
    fn an_installed_spark_is_started_as_it_is() {
        let place = place("");
        let command = place.command(words(&["/jdk/bin/java", "-Xmx1g"]));
        assert_eq!(command.value.as_deref(), Some("/jdk/bin/java"));
        assert_eq!((command.shell(), command.arguments.len()), (false, 2));
        assert_eq!((command.user, command.uris, place.container()), (None, vec![], None));
        assert_eq!(place.argv(words(&["java"])), ["java"]);
        assert_eq!(place.hostname("node1"), "node1");
        assert_eq!(place.launch_timeout(), None);
    }

    #[test]
    fn in_an_image_a_shell_finds_spark_and_java() {
        let place = place(r#","docker":{"image":"i","user":"bob","network":"lan"}"#);
        assert_eq!(place.container().unwrap().docker.unwrap().image, "i");
        assert_eq!((place.hostname("node1"), place.launch_timeout()), ("", Some(SLOW_LAUNCH)));
        let command = place.command(words(&ARGV));
        assert_eq!((command.shell(), command.user.as_deref()), (true, Some("bob")));
        assert!(command.arguments.is_empty());
        let script = command.value.unwrap();
        let env = [("MESOS_SANDBOX", "/"), ("SPARK_HOME", "/s p")];
        assert_eq!(run(&script, &env).0, "it's /s p/jars/*|java|");
        let env = [env[0], env[1], ("JAVA_HOME", "/jdk")];
        assert_eq!(run(&script, &env).0, "it's /s p/jars/*|/jdk/bin/java|");
        let (said, error) = run(&script, &env[..1]);
        assert!(said.is_empty() && error.contains("set spark.mezz.executor.home"), "{error}");
        // What needs no Spark.
        let inner = place.argv(words(&["pwd"]));
        assert_eq!(inner[..2], ["/bin/sh", "-c"]);
        assert_eq!(run(&inner[2], &[("MESOS_SANDBOX", "/usr")]).0, "/usr\n");
    }

    #[test]
    fn a_fetched_spark_is_found_in_the_sandbox() {
        let place =
            place(r#","spark_uri":"http://h/spark-4.tgz","uris":"/data/a, http://h/b,/data/a""#);
        let command = place.command(words(&ARGV));
        let uris: Vec<_> = command.uris.iter().map(|u| (u.value.as_str(), u.cache())).collect();
        assert_eq!(uris, [("http://h/spark-4.tgz", true), ("/data/a", true), ("http://h/b", true)]);
        let script = command.value.unwrap();
        let sandbox = tempfile::tempdir().unwrap();
        let path = sandbox.path().to_str().unwrap();
        let env = [("MESOS_SANDBOX", path), ("SPARK_HOME", "/of/the/driver")];
        let (said, error) = run(&script, &env);
        assert!(said.is_empty() && error.contains("no folder with bin/spark-class"), "{error}");
        let bin = sandbox.path().join("spark-4/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("spark-class"), "").unwrap();
        assert_eq!(run(&script, &env).0, format!("it's {path}/spark-4/jars/*|java|"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (more, said) in [
            (r#","uris":"data.txt""#, "spark.mezz.uris: `data.txt` is neither a URI nor"),
            (r#","spark_uri":"spark.tgz""#, "spark.executor.uri: `spark.tgz` is neither"),
            (
                r#","docker":{"image":"i","network":"none"}"#,
                "docker.network is `none`: an executor",
            ),
            (r#","docker":{"image":"i","volumes":"x"}"#, "docker.volumes is `x`: write"),
        ] {
            let error = Place::read(&register(more)).err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
        let quiet = place(r#","uris":" ,","fetch_cache":false,"spark_uri":"""#);
        assert!(quiet.uris.is_empty() && !quiet.fetches_spark);
        assert!(!place(r#","uris":"/a","fetch_cache":false"#).uris[0].cache());
    }
}
