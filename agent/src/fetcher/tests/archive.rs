use super::*;

/// A tgz of an entry of that kind with as many MiB of zeros, and a file after it.
fn zeros_then_a_file(kind: tar::EntryType, mib: usize) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path("zeros").unwrap();
    header.set_mode(0o755);
    header.set_size(mib as u64 * MIB);
    header.set_cksum();
    let zeros = gz(&vec![0; MIB as usize]).repeat(mib);
    [gz(header.as_bytes()), zeros, gz(&tar(&[Entry::File("file", "")]))].concat()
}

const MIB: u64 = 1 << 20;

/// By a fetcher whose limit is a MiB.
async fn extract(place: &Place, archive: Vec<u8>) -> Result<(), String> {
    let path = place.put("a.tgz", archive);
    let folder = place.0.path().join("fetch");
    let fetcher = Fetcher::open(folder, MIB, FetcherOptions::default(), Patience::default());
    let uris = [uri(path.display())];
    fetcher
        .unwrap()
        .fetch(&uris, &FRAMEWORK, &place.sandbox(), None)
        .await
        .map_err(|e| e.to_string())
}

#[tokio::test]
async fn bombs_beside_the_files_of_a_tar_are_refused() {
    use tar::EntryType as Kind;
    let long = "the name, link and attributes of one entry take more than 1048576 bytes";
    let large = "larger than the limit of 1048576 bytes";
    for (kind, mib, expected) in [
        (Kind::GNULongName, 100, long),
        (Kind::GNULongLink, 10, long),
        (Kind::XHeader, 10, long),
        (Kind::XGlobalHeader, 10, large),
        (Kind::Directory, 10, large),
    ] {
        let place = Place::new();
        let error = extract(&place, zeros_then_a_file(kind, mib)).await.unwrap_err();
        assert!(error.contains(expected), "{kind:?}: {error}");
        let made = place.names();
        assert!(!made.contains(&"file".into()), "{kind:?}: stopped before what follows");
    }
}

#[tokio::test]
async fn long_names_and_attributes_work() {
    let name = |format: &str| format!("{format}/{}/{}", "d".repeat(200), "f".repeat(200));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(3);
    builder.append_data(&mut header, name("gnu"), &b"gnu"[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", name("gnu")).unwrap();
    let attribute = vec![b'x'; MIB as usize / 2];
    let pax = name("pax");
    let extensions = [("SCHILY.xattr.user.a", &attribute[..]), ("path", pax.as_bytes())];
    builder.append_pax_extensions(extensions).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(3);
    builder.append_data(&mut header, "short", &b"pax"[..]).unwrap();

    let place = Place::new();
    extract(&place, gz(&builder.into_inner().unwrap())).await.unwrap();
    assert_eq!((place.text(&name("gnu")), place.text(&pax)), ("gnu".into(), "pax".into()));
    assert_eq!(place.text("link"), "gnu");

    let comment = tar(&[
        Entry::Special(tar::EntryType::XGlobalHeader, "pax_global_header"),
        Entry::File("file", "text"),
    ]);
    let place = Place::new();
    extract(&place, gz(&comment)).await.unwrap();
    assert_eq!(place.text("file"), "text");
}

#[tokio::test]
async fn two_archives_make_no_link_out_together() {
    use tar::EntryType::Symlink;
    let (place, deep) = (Place::new(), "p/".repeat(12));
    let (up, down) = ("../".repeat(12), format!("{deep}up"));
    let climbs = format!("{down}/{up}etc");
    let first = extract(&place, gz(&tar(&[Entry::Link(Symlink, "t", &climbs)]))).await;
    let harmless = [
        Entry::Link(Symlink, &down, &up),
        Entry::Link(Symlink, "dangling", "no/such"),
        Entry::File("a/b/file", "1"),
        Entry::Link(Symlink, "a/b/c/file", "./../../b/file"),
    ];
    extract(&place, gz(&tar(&harmless))).await.unwrap();
    assert!(first.unwrap_err().contains("`..` is not first in its target `p/p/"));
    assert!(fs::symlink_metadata(place.sandbox().join("t")).is_err());
    assert_eq!(place.text("a/b/c/file"), "1");

    symlink("/etc", place.sandbox().join("planted")).unwrap();
    let error = extract(&place, gz(&tar(&[Entry::Link(Symlink, "l", "planted/passwd")]))).await;
    assert!(error.unwrap_err().contains("`l`: a link that leads out of the sandbox"));
}
