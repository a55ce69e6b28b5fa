use proptest::prelude::*;

use super::*;
use shapeyard_core::backend::EnvironmentRule;
use shapeyard_core::{Dim, Signature, TensorSpec};

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn input(name: &str, dtype: DataType, extents: &[usize]) -> TensorSpec {
    let shape = extents.iter().map(|extent| Dim::Fixed(*extent)).collect();
    TensorSpec { name: name.to_owned(), dtype, shape: Some(shape), index_limit: None }
}

fn signature(inputs: Vec<TensorSpec>) -> Signature {
    let outputs = vec![input("y", DataType::F32, &[4, 8])];
    Signature { inputs, outputs, ..Signature::default() }
}

fn backend() -> BackendId {
    BackendId::new("migraphx")
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let rule = EnvironmentRule {
        prefixes: &["MIGRAPHX_", "HIP_"],
        harmless: &["MIGRAPHX_TRACE_*", "HIP_LAUNCH_BLOCKING"],
    };
    Environment::from_variables(
        &rule,
        variables.iter().map(|(name, value)| (name.into(), value.into())),
    )
}

fn whole() -> KeyBuilder {
    Key::builder(digest("model"), backend(), "3")
        .bucket([("batch", 4), ("sequence", 128)].into_iter().collect())
        .signature(&signature(vec![
            input("ids", DataType::I64, &[4, 128]),
            input("mask", DataType::I64, &[4, 128]),
        ]))
        .precision("fp16")
        .calibration(digest("ranges"))
        .option("exhaustive_tune", "true")
        .compiler("MIGraphX 2.15.0")
        .library(digest("library"))
        .driver("HIP 6.4")
        .architecture("gfx90a:sramecc+:xnack-")
        .environment(environment(&[("MIGRAPHX_DISABLE_PASSES", "fuse")]))
        .extra("compute_units", "104")
}

fn fields(ours: &Key, theirs: &Key) -> Vec<String> {
    ours.differences(theirs).into_iter().map(|difference| difference.field).collect()
}

/// The digests below name entries on people's disks. When one changes, `KEY_VERSION` has to.
#[test]
fn digests_hold_still() {
    let bare = Key::builder(digest("model"), backend(), "3").build();
    assert_eq!(
        bare.digest().to_string(),
        "00be9205954c807c3d99c8bb58f0265df9cb788e0e232af3a0c27977da203f95"
    );
    assert_eq!(
        whole().build().digest().to_string(),
        "97ecb8552313c25d0e9e5a864fba0cd7dccb93d2d2665486f24f4881f1a66e47"
    );
}

#[test]
fn the_record_holds_still_and_reads_back() {
    let json = serde_json::to_string(&whole().build()).unwrap();
    let hex = |text| digest(text).to_string();
    let expected = format!(
        concat!(
            r#"{{"version":2,"model":"{}","bucket":{{"batch":4,"sequence":128}},"#,
            r#""inputs":{{"ids":{{"dtype":"i64","axes":[{{"fixed":4}},{{"fixed":128}}]}},"#,
            r#""mask":{{"dtype":"i64","axes":[{{"fixed":4}},{{"fixed":128}}]}}}},"#,
            r#""outputs":{{"y":{{"dtype":"f32","axes":[{{"fixed":4}},{{"fixed":8}}]}}}},"#,
            r#""precision":"fp16","calibration":"{}","options":{{"exhaustive_tune":"true"}},"#,
            r#""backend":"migraphx","backend_version":"3","compiler":"MIGraphX 2.15.0","#,
            r#""library":"{}","driver":"HIP 6.4","architecture":"gfx90a:sramecc+:xnack-","#,
            r#""environment":{{"MIGRAPHX_DISABLE_PASSES":"fuse"}},"extra":{{"compute_units":"104"}}}}"#
        ),
        hex("model"),
        hex("ranges"),
        hex("library"),
    );
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_str::<Key>(&json).unwrap(), whole().build());
}

#[test]
fn pitfall_01_shapes_that_share_a_prefix_have_different_keys() {
    let key = |extents: &[usize]| {
        whole().signature(&signature(vec![input("x", DataType::F32, extents)])).build()
    };
    assert_ne!(key(&[4, 64]).digest(), key(&[4, 128]).digest());
    assert_eq!(fields(&key(&[4, 64]), &key(&[4, 128])), ["inputs.x.axis.1"]);
}

#[test]
fn pitfall_02_borders_between_inputs_and_ranks_count() {
    let key = |first: &[usize], second: &[usize]| {
        let inputs = vec![input("a", DataType::F32, first), input("b", DataType::F32, second)];
        whole().signature(&signature(inputs)).build().digest()
    };
    assert_ne!(key(&[2, 3], &[4]), key(&[2], &[3, 4]));
    let mut unknown = input("a", DataType::F32, &[]);
    let scalar = whole().signature(&signature(vec![unknown.clone()])).build();
    unknown.shape = None;
    let unknown = whole().signature(&signature(vec![unknown])).build();
    assert_ne!(scalar.digest(), unknown.digest());
}

#[test]
fn pitfall_05_precision_options_and_calibration_count() {
    let keys = [
        whole(),
        whole().precision("bf16"),
        whole().calibration(digest("edited ranges")),
        whole().option("exhaustive_tune", "false"),
        whole().option("compute_mode", "eager"),
    ];
    let digests: Vec<Digest> = keys.into_iter().map(|key| key.build().digest()).collect();
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "key {index} is taken");
    }
}

#[test]
fn pitfall_06_variables_count_unless_they_only_trace() {
    let key = |variables: &[(&str, &str)]| whole().environment(environment(variables)).build();
    let plain = key(&[]);
    let disabled = key(&[("MIGRAPHX_DISABLE_PASSES", "fuse")]);
    let traced = [("MIGRAPHX_TRACE_EVAL", "1"), ("HIP_LAUNCH_BLOCKING", "1"), ("SHELL", "sh")];
    assert_ne!(plain.digest(), disabled.digest());
    assert_eq!(plain.digest(), key(&traced).digest());
    assert_eq!(
        disabled.differences(&plain),
        [Difference {
            field: "environment.MIGRAPHX_DISABLE_PASSES".to_owned(),
            ours: Some("fuse".to_owned()),
            theirs: None,
        }]
    );
}

#[test]
fn pitfall_08_the_order_of_inputs_and_options_does_not_count() {
    let inputs = [input("a", DataType::F32, &[2]), input("b", DataType::I64, &[2])];
    let [a, b] = inputs;
    let forth = whole().signature(&signature(vec![a.clone(), b.clone()]));
    let back = whole().signature(&signature(vec![b, a]));
    let forth = forth.option("one", "1").option("two", "2").build();
    let back = back.option("two", "2").option("one", "1").build();
    assert_eq!(forth.digest(), back.digest());
    assert_eq!(serde_json::to_string(&forth).unwrap(), serde_json::to_string(&back).unwrap());
}

#[test]
fn pitfall_80_a_difference_names_the_field_and_both_values() {
    let newer = whole().compiler("MIGraphX 2.16.0").build();
    let [difference] = &newer.differences(&whole().build())[..] else { panic!("one field") };
    assert_eq!(difference.to_string(), "compiler: `MIGraphX 2.16.0` here, `MIGraphX 2.15.0` there");
}

#[test]
fn pitfall_84_a_snapshot_does_not_follow_the_environment() {
    let mut variables = vec![("HIP_PATH".into(), "old".into())];
    let rule = EnvironmentRule { prefixes: &["HIP_"], harmless: &[] };
    let snapshot = Environment::from_variables(&rule, variables.clone());
    variables[0].1 = "new".into();
    assert_eq!(snapshot.iter().collect::<Vec<_>>(), [("HIP_PATH", "old")]);
}

#[test]
fn an_unset_field_differs_from_an_empty_one() {
    let unset = Key::builder(digest("model"), backend(), "3");
    let pairs = [
        (unset.clone().precision("").build(), "precision"),
        (unset.clone().environment(Environment::default()).build(), "environment"),
        (unset.clone().option("", "").build(), "options."),
    ];
    for (empty, field) in pairs {
        assert_ne!(empty.digest(), unset.clone().build().digest());
        assert_eq!(fields(&empty, &unset.clone().build())[0], field);
    }
}

#[test]
fn the_nearest_key_is_of_the_same_shape() {
    let ours = whole().compiler("MIGraphX 2.16.0").library(digest("newer")).build();
    let older = whole().build();
    let other_shape = whole()
        .compiler("MIGraphX 2.16.0")
        .library(digest("newer"))
        .bucket([("batch", 8), ("sequence", 128)].into_iter().collect())
        .build();
    let distance = |other| distance(&ours.differences(other));
    assert!(distance(&older) < distance(&other_shape));
    assert_eq!(distance(&ours), 0);
}

fn axis() -> impl Strategy<Value = AxisKey> {
    prop_oneof![
        (0u64..5).prop_map(AxisKey::Fixed),
        "[a-c.]{0,2}".prop_map(AxisKey::Symbol),
        Just(AxisKey::Unnamed),
    ]
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-c.=]{0,2}", "[a-c.=]{0,2}", 0..3)
}

#[test]
fn what_only_the_compilers_machine_knows_can_be_left_out() {
    let other = whole().compiler("another").library(digest("another")).driver("another");
    let other = other.architecture("another").environment(Environment::default()).build();
    let one = whole().build();
    assert!(!one.differences(&other).is_empty());
    assert_eq!(one.differs(&other, Compared::ButMachine), []);
    assert_eq!(one.machine().unwrap().architecture.as_deref(), Some("gfx90a:sramecc+:xnack-"));
    let faster = whole().precision("fp8").compiler("another").build();
    let fields: Vec<String> =
        one.differs(&faster, Compared::ButMachine).into_iter().map(|it| it.field).collect();
    assert_eq!(fields, ["precision"]);
}

prop_compose! {
    /// Few letters and short texts, so that two keys are often nearly equal.
    fn any_key()(
        model in 0u8..3,
        bucket in proptest::collection::btree_map("[ab.]{0,2}", 0usize..4, 0..3),
        inputs in proptest::collection::btree_map(
            "[ab.]{0,2}",
            (0usize..3, proptest::option::of(proptest::collection::vec(axis(), 0..3))),
            0..3,
        ),
        outputs in proptest::collection::btree_map("[ab.]{0,2}", 0usize..3, 0..3),
        texts in proptest::array::uniform4(proptest::option::of("[ab]{0,1}")),
        digests in proptest::array::uniform2(proptest::option::of(0u8..2)),
        maps in (texts(), proptest::option::of(texts()), texts()),
        names in ("[ab]{0,1}", "[ab]{0,1}"),
    ) -> Key {
        let [precision, compiler, driver, architecture] = texts;
        let [calibration, library] = digests.map(|n| n.map(|n| Digest::of(&[n])));
        let (options, environment, extra) = maps;
        let input = |(dtype, axes): (usize, _)| ValueKey { dtype: DataType::ALL[dtype], axes };
        Key {
            version: KEY_VERSION,
            model: Digest::of(&[model]),
            bucket: bucket.into_iter().collect(),
            inputs: inputs.into_iter().map(|(name, of)| (name, input(of))).collect(),
            outputs: outputs.into_iter().map(|(name, of)| (name, input((of, None)))).collect(),
            precision, calibration, options,
            backend: BackendId::from(names.0), backend_version: names.1,
            compiler, library, driver, architecture,
            environment: environment.map(Environment::from_iter), extra,
        }
    }
}

#[test]
fn every_field_is_listed_with_its_value_or_as_not_set() {
    let key = Key::builder(Digest::of(b"model"), BackendId::new("test"), "3")
        .bucket([("batch", 4)].into_iter().collect())
        .compiler("compiler 1.0")
        .option("tune", "true")
        .build();
    let fields = key.fields();
    let value = |name: &str| fields.iter().find(|field| field.name == name).unwrap().value.clone();
    assert_eq!(value("bucket.batch").as_deref(), Some("4"));
    assert_eq!(value("options.tune").as_deref(), Some("true"));
    assert_eq!((value("extra").as_deref(), value("environment")), (Some("empty"), None));
    assert!(fields.iter().all(|field| field.name != "bucket"), "its members say it");
    assert_eq!(key.compiler(), Some("compiler 1.0"));
    assert_eq!((key.backend_version(), key.precision()), ("3", None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Pitfalls 1 to 10 in general: nothing can be moved between fields, no border is lost.
    #[test]
    fn keys_are_equal_exactly_when_their_digests_are(one in any_key(), other in any_key()) {
        prop_assert_eq!(one == other, one.digest() == other.digest());
        prop_assert_eq!(one == other, one.differences(&other).is_empty());
        prop_assert_eq!(one == other, distance(&one.differences(&other)) == 0);
    }

    #[test]
    fn records_read_back(key in any_key()) {
        let json = serde_json::to_vec(&key).unwrap();
        let back: Key = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(back.digest(), key.digest());
        prop_assert_eq!(back, key);
    }

    /// Each field in turn takes the value of another key, and the digest follows.
    #[test]
    fn every_field_counts(key in any_key(), other in any_key()) {
        let mut changed: Vec<(&str, Key)> = Vec::new();
        macro_rules! change {
            ($($field:ident)*) => {$(
                let mut one = key.clone();
                one.$field = other.$field.clone();
                changed.push((stringify!($field), one));
            )*};
        }
        change!(model bucket inputs outputs precision calibration options backend backend_version compiler
            library driver architecture environment extra);
        for (field, one) in changed {
            let differences = key.differences(&one);
            prop_assert_eq!(one == key, one.digest() == key.digest());
            for difference in differences {
                prop_assert!(difference.field.starts_with(field), "{} in {field}", difference.field);
            }
        }
    }
}
