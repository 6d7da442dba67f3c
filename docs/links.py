"""What pages need to be a site: links into the repository, and commands that are known as such."""

import re


def on_page_markdown(markdown: str, *, page, config, files) -> str:
    """The hook that MkDocs calls for each page."""
    markdown = re.sub(r"\]\(\.\./", f"]({config.repo_url}/blob/main/", markdown)
    command = r"^```\n(?=(?:mmt|make|pip|python) |[A-Z]=)"
    return re.sub(command, "```sh\n", markdown, flags=re.MULTILINE)


def on_page_content(html: str, *, page, config, files) -> str:
    """Keeps lines from being broken within an interval, or between a flag's dashes and its name."""
    html = re.sub(r"(\[[−-]?[.\d]+,) (?=[−-]?[.\d]+\])", r"\1&nbsp;", html)
    return re.sub(r"(?<![\w-])--[a-z]\w{,30}\b", r'<span class="flag">\g<0></span>', html)
