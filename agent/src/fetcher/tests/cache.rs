use super::*;

pub(super) fn cached(value: impl ToString) -> v1::command_info::Uri {
    v1::command_info::Uri { cache: Some(true), ..uri(value) }
}

#[tokio::test]
async fn many_tasks_share_one_download() {
    let (url, count) = counting(|_| (200, "served")).await;
    let (_dir, fetcher) = fetcher(FetcherOptions::default());
    let places: Vec<_> = (0..20).map(|_| Place::new()).collect();
    let all = places.iter().map(|place| {
        let (fetcher, uris) = (fetcher.clone(), [cached(&url)]);
        async move { fetcher.fetch(&uris, &FRAMEWORK, &place.sandbox(), None).await }
    });
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(places.iter().all(|place| place.text("file") == "served"));
    // Another user's rights may differ.
    fetcher.fetch(&[cached(&url)], &FRAMEWORK, &places[0].sandbox(), Some("nobody")).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // Whoever asks for no cache gets it fresh.
    fetcher.fetch(&[uri(&url)], &FRAMEWORK, &places[0].sandbox(), None).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn cached_files_are_the_agents_alone() {
    let (url, _) = counting(|_| (200, "secret")).await;
    let (dir, fetcher) = fetcher(FetcherOptions::default());
    let place = Place::new();
    let path = place.put("local", "secret");
    let uris = [cached(&url), cached(path.display())];
    fetcher.fetch(&uris, &FRAMEWORK, &place.sandbox(), Some("nobody")).await.unwrap();
    let folder = dir.path().join("fetch/cache");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&place.sandbox().join("local")), 0o644, "as without a cache");
}

#[tokio::test]
async fn a_failure_is_shared_and_not_kept() {
    let (url, count) = counting(|n| if n == 1 { (404, "") } else { (200, "there") }).await;
    let (_dir, fetcher) = fetcher(FetcherOptions::default());
    let places = [Place::new(), Place::new()];
    let uris = [cached(&url)];
    let both = futures_util::future::join(
        fetcher.fetch(&uris, &FRAMEWORK, places[0].0.path(), None),
        fetcher.fetch(&uris, &FRAMEWORK, places[1].0.path(), None),
    );
    let (one, other) = both.await;
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert!(error.to_string().contains("answered 404"), "{error}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let place = Place::new();
    fetcher.fetch(&uris, &FRAMEWORK, &place.sandbox(), None).await.unwrap();
    assert_eq!(place.text("file"), "there");
}

#[tokio::test]
async fn a_first_user_that_is_cut_short_harms_no_other() {
    let (url, _) = counting(|_| (200, "served")).await;
    let (_dir, fetcher) = fetcher(FetcherOptions::default());
    let (first, second) = (Place::new(), Place::new());
    let uris = [cached(&url)];
    let (sandbox, cut) = (first.sandbox(), Duration::from_millis(30));
    let first = tokio::time::timeout(cut, fetcher.fetch(&uris, &FRAMEWORK, &sandbox, None));
    let both = futures_util::future::join(first, async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        fetcher.fetch(&uris, &FRAMEWORK, &second.sandbox(), None).await
    });
    let (first, other) = both.await;
    assert!(first.is_err(), "it was cut short");
    other.unwrap();
    assert_eq!(second.text("file"), "served");
}

#[tokio::test]
async fn the_cache_forgets_what_was_longest_unused() {
    let place = Place::new();
    let path = |n: usize| place.0.path().join(format!("f{n}"));
    (0..3).for_each(|n| fs::write(path(n), vec![b'0'; 1000]).unwrap());
    let (_dir, fetcher) = fetcher(FetcherOptions { cache_bytes: 2500, ..Default::default() });
    let get = async |n: usize| {
        let uris = [cached(path(n).display())];
        fetcher.fetch(&uris, &FRAMEWORK, &place.sandbox(), None).await.unwrap();
        place.text(&format!("f{n}")).as_bytes()[0]
    };
    for n in [0, 1, 0, 2] {
        assert_eq!(get(n).await, b'0');
    }
    (0..3).for_each(|n| fs::write(path(n), vec![b'1'; 1000]).unwrap());
    assert_eq!([get(0).await, get(2).await], [b'0', b'0'], "used last");
    assert_eq!(get(1).await, b'1', "forgotten");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while fetcher.0.cache.files() != 2 {
        assert!(std::time::Instant::now() < deadline, "{} files", fetcher.0.cache.files());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_cached_archive_brings_its_content_only() {
    let place = Place::new();
    let path = place.put("a.tgz", gz(&tar(&[Entry::File("d/x", "1")])));
    let (dir, fetcher) = fetcher(FetcherOptions::default());
    let mut below = cached(path.display());
    below.output_file = Some("sub/b.tgz".into());
    fetcher
        .fetch(&[cached(path.display()), below], &FRAMEWORK, &place.sandbox(), None)
        .await
        .unwrap();
    assert_eq!(place.names(), ["d", "sub"]);
    assert_eq!((place.text("d/x"), place.text("sub/d/x")), ("1".into(), "1".into()));
    assert_eq!(fetcher.0.cache.files(), 1);
    drop(fetcher);
    let again = dir.path().join("fetch");
    let options = FetcherOptions::default();
    let fetcher = Fetcher::open(again, LIMIT, options, Patience::default()).unwrap();
    assert_eq!(fetcher.0.cache.files(), 0, "emptied");
}

#[tokio::test]
async fn checksums_are_checked() {
    let place = Place::new();
    let path = place.put("a.tar", tar(&[Entry::File("x", "1")]));
    let right: String =
        Sha256::digest(fs::read(&path).unwrap()).iter().map(|b| format!("{b:02X}")).collect();
    let with = |sum: &str| format!("{}#sha256={sum}", path.display());
    fetch(&place.sandbox(), &[uri(with(&right)), cached(with(&right))]).await.unwrap();
    assert_eq!(place.names(), ["a.tar", "x"]);
    let place = Place::new();
    for bad in [uri(with(&"0".repeat(64))), cached(with(&"0".repeat(64)))] {
        let error = fetch(&place.sandbox(), &[bad]).await.unwrap_err();
        let expected = format!("its SHA-256 is {}, not 0000", right.to_ascii_lowercase());
        assert!(error.contains(&expected), "{error}");
    }
    let error = fetch(&place.sandbox(), &[uri(with("00"))]).await.unwrap_err();
    assert!(error.contains("64 hexadecimal digits"), "{error}");
    assert_eq!(place.names(), Vec::<String>::new());
}
