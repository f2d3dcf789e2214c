// A job as code: the same request against this box in curl, Python and JavaScript, and the dialog that shows it.
const KEY = "YOUR_KEY";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(base, body) {
  const json = quoted(JSON.stringify(body, null, 2));
  return [
    `curl -sS ${base}/v1/generate \\`,
    `  -H "X-API-Key: ${KEY}" -H "Content-Type: application/json" \\`,
    `  -d ${json}`,
    "",
    "# Then, with the job_id of the answer, until the status is completed or failed:",
    `# curl -sS ${base}/v1/job_status/JOB_ID -H "X-API-Key: ${KEY}"`,
  ].join("\n");
}

// JSON's literals are Python's too: the body has no true, false or null.
function python(base, body) {
  return `import time

import requests

BASE = ${JSON.stringify(base)}
HEADERS = {"X-API-Key": "${KEY}"}

body = ${JSON.stringify(body, null, 4)}
answer = requests.post(f"{BASE}/v1/generate", json=body, headers=HEADERS)
answer.raise_for_status()
job = answer.json()
while job["status"] not in ("completed", "failed"):
    time.sleep(2)
    job = requests.get(f"{BASE}/v1/job_status/{job['job_id']}", headers=HEADERS).json()
if job["status"] == "failed":
    raise RuntimeError(job["error"])
print(job["result_url"])`;
}

function javascript(base, body) {
  return `const base = ${JSON.stringify(base)};
const headers = { "X-API-Key": "${KEY}", "Content-Type": "application/json" };

const body = ${JSON.stringify(body, null, 2)};
const answer = await fetch(\`\${base}/v1/generate\`, { method: "POST", headers, body: JSON.stringify(body) });
if (!answer.ok) throw new Error((await answer.json()).detail);
let job = await answer.json();
while (!["completed", "failed"].includes(job.status)) {
  await new Promise((wait) => setTimeout(wait, 2000));
  job = await (await fetch(\`\${base}/v1/job_status/\${job.job_id}\`, { headers })).json();
}
if (job.status === "failed") throw new Error(job.error);
console.log(job.result_url);`;
}

const LANGUAGES = [["curl", curl], ["Python", python], ["JavaScript", javascript]];

// The dialog: a tab for each language, walked through with the arrow keys.
export class Code {
  constructor(base) {
    this.base = base;
    this.dialog = document.getElementById("code");
    this.text = document.getElementById("code-text");
    this.panel = document.getElementById("code-panel");
    this.tabs = LANGUAGES.map(([name, write], place) => this.tab(name, write, place));
    document.getElementById("code-tabs").append(...this.tabs);
    document.getElementById("code-tabs").addEventListener("keydown", (event) => this.walk(event));
    document.getElementById("code-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.chosen = 0;
  }

  show(body) {
    this.body = body;
    this.choose(this.chosen);
    this.dialog.showModal();
    this.tabs[this.chosen].focus();
  }

  tab(name, write, place) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "button quiet small", textContent: name, id: `code-${name.toLowerCase()}` });
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", "code-panel");
    button.addEventListener("click", () => this.choose(place));
    return button;
  }

  choose(place) {
    this.chosen = place;
    this.tabs.forEach((tab, at) => {
      tab.setAttribute("aria-selected", String(at === place));
      tab.tabIndex = at === place ? 0 : -1;
    });
    this.panel.setAttribute("aria-labelledby", this.tabs[place].id);
    this.text.textContent = LANGUAGES[place][1](this.base, this.body);
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.choose((this.chosen + step + this.tabs.length) % this.tabs.length);
    this.tabs[this.chosen].focus();
  }
}
