//! Unpacked images as the root, and what is mounted in them.

use super::*;

/// A folder with a shell and a few tools, and what they are linked to.
fn unpack(folder: &Path) {
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let put = |from: &Path| {
        let to = folder.join(from.strip_prefix("/").unwrap());
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    };
    put(Path::new(loader));
    for tool in ["sh", "ls", "cat", "sleep", "id", "touch", "env", "stat"] {
        let tool = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(tool));
        let tool = tool.iter().find(|path| path.exists()).expect("a tool");
        put(tool);
        let libraries = Command::new(loader).arg("--list").arg(tool).output().unwrap();
        for word in String::from_utf8(libraries.stdout).unwrap().split_whitespace() {
            if word.starts_with('/') {
                put(Path::new(word));
            }
        }
    }
    if !folder.join("bin/sh").exists() {
        symlink("usr/bin", folder.join("bin")).unwrap();
    }
    fs::write(folder.join("name"), "image\n").unwrap();
    // For kernels that lay nothing over an image.
    for name in ["dev", "proc", "sys", "tmp", "mnt/mesos/sandbox"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
}

/// Whether this kernel can lay a layer over an image; the one in the virtual machine
/// cannot.
fn layers() -> bool {
    fs::read_to_string("/proc/filesystems").unwrap().contains("overlay")
}

/// All names below a folder, with what they are.
fn everything_in(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let is = entry.metadata().unwrap();
            let (mode, changed) = (is.mode(), is.modified().unwrap());
            found.insert(format!("{} {mode:o} {changed:?}", entry.path().display()));
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

fn with_images() -> (Agent, PathBuf) {
    let (dir, mut options) = support::options(Containment::Cgroup);
    let images = dir.path().join("images");
    unpack(&images.join("tools/one"));
    options.isolation.image_dir = Some(images.clone());
    (Agent::with((dir, options)), images)
}

fn image(name: &str) -> ContainerInfo {
    let docker = image::Docker { name: name.into(), ..Default::default() };
    let image =
        Image { r#type: image::Type::Docker.into(), docker: Some(docker), ..Default::default() };
    ContainerInfo { mesos: Some(MesosInfo { image: Some(image) }), ..info() }
}

#[tokio::test]
async fn an_image_is_the_root() {
    let (agent, images) = with_images();
    for user in [None, Some("nobody".to_owned())] {
        let show = "cat /name; pwd; echo $MESOS_SANDBOX; echo x > file; echo y > /tmp/file; \
                    touch /new; echo z > /dev/null; echo $(ls /dev); ls /proc/1 /sys/kernel \
                    > /dev/null && touch /sys/x; echo ready; exec sleep 1000";
        let mut spec = ContainerSpec { user, ..with(&agent, show, image("tools/one")) };
        spec.environment.insert("MESOS_SANDBOX".into(), "elsewhere".into());
        let sandbox = spec.sandbox.clone();
        let id = agent.start(spec).await;
        until("it is ready", || agent.output(&id, "stdout").ends_with("ready\n")).await;
        assert_eq!(
            agent.output(&id, "stdout"),
            "image\n/mnt/mesos/sandbox\n/mnt/mesos/sandbox\nfd full null ptmx pts random shm \
             stderr stdin stdout tty urandom zero\nready\n"
        );
        let errors = agent.output(&id, "stderr");
        assert_eq!(errors.lines().count(), 2, "{errors}");
        assert_eq!(fs::read_to_string(sandbox.join("file")).unwrap(), "x\n");
        assert_eq!(fs::read_to_string(sandbox.join(".tmp/file")).unwrap(), "y\n");
        assert!(!images.join("tools/one/new").exists());
        assert_eq!(exec(&agent, &id, "cat /name file").await, "image\nx\n");
        agent.it.destroy(&id).await.unwrap();
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn nothing_in_a_container_leads_to_root_of_the_machine() {
    let (agent, _images) = with_images();
    for (user, no_new) in [(None, 0), (Some("nobody".to_owned()), 1)] {
        let show = "test -w /proc/sys/kernel/core_pattern && echo writable; \
                    test -w /proc/sysrq-trigger && echo writable; \
                    find() { while read name value; do test $name = $1 && echo $value; done; }; \
                    find CapEff: < /proc/1/status; find NoNewPrivs: < /proc/self/status; exit 0";
        let mut spec = ContainerSpec { user, ..with(&agent, show, image("tools/one")) };
        let info = spec.info.as_mut().unwrap();
        info.linux_info =
            Some(LinuxInfo { share_pid_namespace: Some(false), ..Default::default() });
        let id = agent.start(spec).await;
        agent.wait(&id).await;
        let expected = format!("0000000000000000\n{no_new}\n");
        assert_eq!(agent.output(&id, "stdout"), expected, "{}", agent.output(&id, "stderr"));
        agent.remove(&id).await;
    }
}

#[tokio::test]
async fn an_image_with_everything_of_its_own() {
    let (agent, images) = with_images();
    let mut spec =
        with(&agent, "cat /name /vol/file /file; echo $$; cat own/x", image("tools/one"));
    let host = agent.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "volume\n").unwrap();
    fs::create_dir(images.join("tools/one/vol")).unwrap();
    fs::write(images.join("tools/one/file"), "").unwrap();
    let info = spec.info.as_mut().unwrap();
    info.linux_info = own_pids().linux_info;
    info.hostname = Some("box".into());
    info.network_infos = vec![NetworkInfo { name: Some("none".into()), ..Default::default() }];
    info.volumes = vec![
        volume("/vol", host.to_str(), Mode::Ro),
        volume("/file", host.join("file").to_str(), Mode::Ro),
        volume("own", host.to_str(), Mode::Ro),
    ];
    fs::write(host.join("x"), "x\n").unwrap();
    assert_eq!(output(&agent, spec).await, "image\nvolume\nvolume\n2\nx\n");
    assert_eq!(fs::read_dir(images.join("tools/one/vol")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_image_is_never_changed() {
    let (agent, images) = with_images();
    let root = images.join("tools/one");
    for name in ["dev", "proc", "sys", "tmp", "mnt"] {
        fs::remove_dir_all(root.join(name)).unwrap();
    }
    fs::write(agent.dir.path().join("file"), "volume\n").unwrap();
    let before = everything_in(&root);
    let file = agent.dir.path().join("file");
    let volumes = vec![
        volume("/deep/er/file", file.to_str(), Mode::Rw),
        volume("/usr/more", file.to_str(), Mode::Rw),
    ];
    let info = ContainerInfo { volumes, ..image("tools/one") };
    let show = "cat /deep/er/file /usr/more /name; ls -d /proc/1 /dev/null /tmp /mnt/mesos/sandbox; \
                echo $(stat -c %a /); touch /new /usr/new";
    let (text, end) = outcome(&agent, with(&agent, show, info)).await;
    if layers() {
        let expected = "volume\nvolume\nimage\n/dev/null\n/mnt/mesos/sandbox\n/proc/1\n/tmp\n755\n";
        assert_eq!((text.as_str(), status(&end).code()), (expected, Some(1)));
    } else {
        let failure = end.failure.expect("it is refused");
        assert!(failure.contains("the image has no /proc, where something is to be"), "{failure}");
        assert!(failure.ends_with("; make it in the image"), "{failure}");
    }
    assert_eq!(everything_in(&root), before);
}

#[tokio::test]
async fn nothing_is_made_in_a_volume() {
    let (agent, images) = with_images();
    fs::create_dir(images.join("tools/one/vol")).unwrap();
    let host = agent.dir.path().join("host");
    fs::create_dir_all(host.join("there")).unwrap();
    let from = host.to_str();
    for (info, first) in [(image("tools/one"), "/vol"), (info(), "vol")] {
        let run = async |second: String| {
            let volumes = vec![volume(first, from, Mode::Rw), volume(&second, from, Mode::Rw)];
            let info = ContainerInfo { volumes, ..info.clone() };
            outcome(&agent, with(&agent, "true", info)).await.1
        };
        assert!(status(&run(format!("{first}/there")).await).success());
        let failure = run(format!("{first}/new/x")).await.failure.expect("it is refused");
        assert!(failure.contains("it is in a volume, in which nothing is made"), "{failure}");
        assert_eq!(fs::read_dir(&host).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn absolute_paths_in_a_sandbox_follow_no_planted_link() {
    let (agent, _images) = with_images();
    let outside = agent.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let from = agent.dir.path().to_str().unwrap().to_owned();
    for info in [image("tools/one"), info()] {
        let spec = with(&agent, "true", info);
        let inside = match &spec.info.as_ref().unwrap().mesos {
            Some(_) => PathBuf::from("/mnt/mesos/sandbox"),
            None => spec.sandbox.clone(),
        };
        let mut planted = spec.clone();
        let to = inside.join("link/x");
        planted.info.as_mut().unwrap().volumes =
            vec![volume(to.to_str().unwrap(), Some(&from), Mode::Rw)];
        symlink(&outside, spec.sandbox.join("link")).unwrap();
        let failure = outcome(&agent, planted).await.1.failure.expect("it is refused");
        assert!(failure.starts_with("cannot open link/x in "), "{failure}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

        // Made for its user.
        let mut made = agent.spec("stat -c %u own");
        let inside = if inside == spec.sandbox { made.sandbox.clone() } else { inside };
        made.info = spec.info.clone();
        made.user = Some("nobody".into());
        let to = inside.join("own/there");
        made.info.as_mut().unwrap().volumes =
            vec![volume(to.to_str().unwrap(), Some(&from), Mode::Rw)];
        assert_eq!(output(&agent, made).await, "65534\n");
    }
}

#[tokio::test]
async fn images_come_from_below_their_folder_only() {
    let (agent, images) = with_images();
    symlink("/etc", images.join("link")).unwrap();
    for (name, why) in [
        ("../images", "is no path below the folder of images"),
        ("/etc", "is no path below the folder of images"),
        ("", "is no path below the folder of images"),
        ("link", "leads out of the folder of images"),
        ("nothing", "there is no image `nothing`"),
        ("tools/one/name", "is no folder"),
    ] {
        let text = refusal(&agent, image(name)).await;
        assert!(text.contains("container.mesos.image: ") && text.contains(why), "{name}: {text}");
    }
    let text = refusal(&Agent::new(Containment::Cgroup), image("tools/one")).await;
    assert!(text.contains("its --image-dir is not set"), "{text}");
}

#[tokio::test]
async fn links_in_an_image_stay_in_it() {
    let (agent, images) = with_images();
    let image_root = images.join("evil");
    unpack(&image_root);
    for name in ["dev", "mnt", "tmp"] {
        fs::remove_dir_all(image_root.join(name)).unwrap();
        symlink(agent.dir.path().join("outside"), image_root.join(name)).unwrap();
    }
    let spec = with(&agent, "cat /name; ls /dev/null; pwd", image("evil"));
    let (_, end) = outcome(&agent, spec).await;
    // The links lead to nothing in the image itself, which is an error or a new folder.
    drop(end);
    assert!(!agent.dir.path().join("outside").exists());
}

/// Unmounted with all that is below it.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Two layers: as many as a kernel lays over one another.
fn layered(of: &Path, at: &Path) -> Vec<Mounted> {
    let between = of.with_extension("between");
    let empty = of.with_extension("empty");
    let mut mounted = Vec::new();
    for (lower, point) in [(of, between.as_path()), (between.as_path(), at)] {
        fs::create_dir_all(point).unwrap();
        fs::create_dir_all(&empty).unwrap();
        let options = format!("lowerdir={}:{}", empty.display(), lower.display());
        let mount = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(point)
            .status();
        assert!(mount.unwrap().success(), "{options}");
        mounted.push(Mounted(point.to_owned()));
    }
    mounted.reverse();
    mounted
}

#[tokio::test]
async fn an_image_that_is_a_mount_stays_one_where_nothing_is_laid_over_it() {
    if !layers() {
        return;
    }
    let (agent, images) = with_images();
    let at = images.join("tools/mounted");
    let mounted = layered(&images.join("tools/one"), &at);
    let show = "cat /name; touch /new || echo read-only";
    assert_eq!(
        output(&agent, with(&agent, show, image("tools/mounted"))).await,
        "image\nread-only\n"
    );
    assert!(at.join("name").exists());
    drop(mounted);
}
