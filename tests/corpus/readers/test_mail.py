from reader_examples import read

HEAD = b"From: a@example.org\nSubject: Greetings to b@example.org\n"
BODY = b"A letter of some length, to be sent to c.d+e@example.org and to nobody else at all, caf\xe9.\n"


def test_subject_and_body_are_kept_without_addresses_and_other_headers():
    (text,) = read("mail", HEAD + b"\n" + BODY)
    assert text == (
        "Subject: Greetings to <addr>\n\nA letter of some length, to be sent to <addr> and to nobody else at all, "
        "caf\u00e9.\n"
    )


def test_of_several_bodies_the_plain_one_is_read():
    part = b"--x\nContent-Type: text/%s\n\n%s\n"
    message = HEAD + b"Content-Type: multipart/alternative; boundary=x\n\n"
    message += part % (b"html", b"<p>rich</p>") + part % (b"plain", BODY) + b"--x--\n"
    (text,) = read("mail", message)
    assert "A letter" in text
    assert "rich" not in text


def test_a_body_of_html_alone_is_read_as_text():
    (text,) = read("mail", HEAD + b"Content-Type: text/html\n\n<p>" + BODY + b"</p><script>x</script>")
    assert "\n\nA letter of some length" in text
    assert "script" not in text


def test_messages_without_text_are_dropped():
    image = HEAD + b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + b"AAAA\n" * 100
    assert read("mail", image, b"\nshort\n", HEAD + b"\n" + BODY * 1000) == []
