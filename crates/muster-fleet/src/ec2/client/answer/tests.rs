//! Answers in the forms of the EC2 API Reference, whole and damaged.

use super::*;

const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
    <requestId>8f7724cf-496f-496e-8fe3-example</requestId>
    <reservationSet>
        <item>
            <reservationId>r-1234567890abcdef0</reservationId>
            <ownerId>123456789012</ownerId>
            <groupSet/>
            <instancesSet>
                <item>
                    <instanceId>i-1234567890abcdef0</instanceId>
                    <imageId>ami-bff32ccc</imageId>
                    <instanceState>
                        <code>16</code>
                        <name>running</name>
                    </instanceState>
                    <reason/>
                    <amiLaunchIndex>0</amiLaunchIndex>
                    <productCodes/>
                    <instanceType>t2.micro</instanceType>
                    <launchTime>2015-12-22T10:44:05.000Z</launchTime>
                    <monitoring><state>disabled</state></monitoring>
                    <blockDeviceMapping>
                        <item>
                            <deviceName>/dev/xvda</deviceName>
                            <ebs><volumeId>vol-1234567890abcdef0</volumeId></ebs>
                        </item>
                    </blockDeviceMapping>
                    <instanceLifecycle>spot</instanceLifecycle>
                    <tagSet>
                        <item><key>Name</key><value>a &amp; &#x41;</value></item>
                        <item><key>muster:launch</key><value/></item>
                        <item><key>muster:slot</key><value>7</value></item>
                    </tagSet>
                    <networkInterfaceSet>
                        <item>
                            <networkInterfaceId>eni-551ba033</networkInterfaceId>
                            <tagSet><item><key>muster:slot</key><value>9</value></item></tagSet>
                        </item>
                    </networkInterfaceSet>
                </item>
                <item>
                    <instanceId>i-2</instanceId>
                    <instanceState><code>0</code><name>pending</name></instanceState>
                    <amiLaunchIndex>1</amiLaunchIndex>
                </item>
            </instancesSet>
        </item>
        <item>
            <instancesSet>
                <item>
                    <instanceId>i-3</instanceId>
                    <instanceState><code>80</code><name>stopped</name></instanceState>
                    <tagSet/>
                </item>
            </instancesSet>
        </item>
    </reservationSet>
    <nextToken>eyJ2IjoiMiJ9</nextToken>
</DescribeInstancesResponse>"#;

fn page(xml: &str) -> Result<(Vec<Instance>, Option<String>), UnreadableAnswer> {
    let page: DescribeInstances = read(xml.as_bytes(), "DescribeInstancesResponse")?;
    Ok(page.into_parts())
}

#[test]
fn a_page_gives_every_instance_of_every_reservation() {
    let (instances, next) = page(PAGE).unwrap();
    assert_eq!(next.as_deref(), Some("eyJ2IjoiMiJ9"));
    let ids: Vec<_> = instances.iter().map(|i| i.instance_id.as_str()).collect();
    assert_eq!(ids, ["i-1234567890abcdef0", "i-2", "i-3"]);
    let states = instances.iter().map(|i| i.instance_state.name.as_str());
    assert_eq!(
        states.collect::<Vec<_>>(),
        ["running", "pending", "stopped"]
    );
    let [first, second, third] = &instances[..] else {
        panic!("{instances:?}");
    };
    assert_eq!(first.ami_launch_index, Some(0));
    assert_eq!(
        first.launch_time.as_deref(),
        Some("2015-12-22T10:44:05.000Z")
    );
    assert_eq!(first.instance_lifecycle.as_deref(), Some("spot"));
    assert_eq!(first.tag("Name"), Some("a & A"));
    assert_eq!(first.tag("muster:launch"), Some(""));
    assert_eq!(first.tag("muster:slot"), Some("7"));
    assert_eq!(first.tag("muster"), None);
    assert_eq!(second.ami_launch_index, Some(1));
    assert_eq!(second.tag("muster:slot"), None);
    assert_eq!(
        (third.launch_time.as_deref(), third.ami_launch_index),
        (None, None)
    );
}

#[test]
fn the_last_page_names_no_next_one() {
    for next in ["", "<nextToken/>", "<nextToken></nextToken>"] {
        let xml = format!(
            "<DescribeInstancesResponse><reservationSet/>{next}</DescribeInstancesResponse>"
        );
        let (instances, next) = page(&xml).unwrap();
        assert!(instances.is_empty() && next.is_none(), "{xml}");
    }
}

#[test]
fn a_launch_and_an_acknowledgement_are_read() {
    let launch = r#"<RunInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
        <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>
        <reservationId>r-1</reservationId><groupSet/>
        <instancesSet><item>
            <instanceId>i-1</instanceId>
            <instanceState><code>0</code><name>pending</name></instanceState>
            <amiLaunchIndex>2</amiLaunchIndex>
        </item></instancesSet>
    </RunInstancesResponse>"#;
    let launch: RunInstances = read(launch.as_bytes(), "RunInstancesResponse").unwrap();
    let instances = launch.into_instances();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].ami_launch_index, Some(2));
    let stopped = r#"<StopInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
        <instancesSet><item>
            <instanceId>i-1</instanceId>
            <currentState><code>64</code><name>stopping</name></currentState>
        </item></instancesSet>
    </StopInstancesResponse>"#;
    let _: Acknowledged = read(stopped.as_bytes(), "StopInstancesResponse").unwrap();
}

#[test]
fn an_error_gives_its_first_code() {
    let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
        <Response><Errors>
            <Error><Code>InvalidInstanceID.NotFound</Code>
                <Message>The instance ID 'i-1' does not exist</Message></Error>
            <Error><Code>Another</Code></Error>
        </Errors><RequestID>ea966190-f9aa-478e-9ede-example</RequestID></Response>"#;
    let error = read_error(xml.as_bytes()).unwrap();
    assert_eq!(error.code, "InvalidInstanceID.NotFound");
    assert_eq!(error.message, "The instance ID 'i-1' does not exist");
    let request = error.request_id.as_deref();
    assert_eq!(request, Some("ea966190-f9aa-478e-9ede-example"));
    let bare = "<Response><Errors><Error><Code>Blocked</Code></Error></Errors></Response>";
    assert_eq!(read_error(bare.as_bytes()).unwrap().code, "Blocked");
    for no_error in [
        "",
        "<html><body>Bad Gateway</body></html>",
        "<Response><Errors/></Response>",
        "<Response><Errors><Error><Message>no code</Message></Error></Errors></Response>",
        "<Response><Errors><Error><Code>cut",
    ] {
        assert!(read_error(no_error.as_bytes()).is_none(), "{no_error}");
    }
}

#[test]
fn what_is_no_listing_is_never_an_empty_one() {
    let wrong_root = "<RunInstancesResponse><reservationSet/></RunInstancesResponse>";
    for (xml, why) in [
        ("", "nothing"),
        ("{\"reservationSet\": []}", "JSON"),
        ("<html><body>Sign in</body></html>", "a page of a proxy"),
        (wrong_root, "another call's answer"),
        ("<DescribeInstancesResponse/>", "no set of reservations"),
        (
            "<DescribeInstancesResponse><reservationSet><item/></reservationSet>\
             </DescribeInstancesResponse>",
            "a reservation without instances",
        ),
        (
            "<DescribeInstancesResponse><reservationSet><item><instancesSet><item>\
             <instanceState><name>running</name></instanceState>\
             </item></instancesSet></item></reservationSet></DescribeInstancesResponse>",
            "an instance without an id",
        ),
    ] {
        assert!(page(xml).is_err(), "{why}");
    }
    assert!(matches!(
        read::<DescribeInstances>(b"\xff\xfe", "DescribeInstancesResponse"),
        Err(UnreadableAnswer::Text(_))
    ));
}

#[test]
fn a_listing_that_breaks_off_is_an_error_wherever_it_does() {
    let whole = PAGE.trim_end().len();
    for end in (0..whole).filter(|end| PAGE.is_char_boundary(*end)) {
        assert!(
            page(&PAGE[..end]).is_err(),
            "cut at {end}: {}",
            &PAGE[..end]
        );
    }
}

#[test]
fn hostile_xml_costs_no_more_than_its_length() {
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
        <DescribeInstancesResponse><reservationSet/><nextToken>&b;</nextToken>
        </DescribeInstancesResponse>"#;
    assert!(page(bomb).is_err(), "entities of its own are not expanded");
    let file = r#"<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>
        <DescribeInstancesResponse><reservationSet/><nextToken>&f;</nextToken>
        </DescribeInstancesResponse>"#;
    assert!(page(file).is_err(), "no file is read");
    let depth = 200_000;
    let deep = format!(
        "<DescribeInstancesResponse><unknown>{}{}</unknown><reservationSet/>\
         </DescribeInstancesResponse>",
        "<a>".repeat(depth),
        "</a>".repeat(depth)
    );
    assert!(
        page(&deep).is_ok(),
        "unknown elements are passed over, however deep"
    );
    let unclosed = format!(
        "<DescribeInstancesResponse>{}",
        "<reservationSet><item><instancesSet><item>".repeat(depth)
    );
    assert!(page(&unclosed).is_err());
}
