// What the page remembers: the caller's credentials for as long as the tab is open, and the chosen theme.

const CREDENTIALS = "opstream.credentials";
const THEME = "opstream.theme";
export const THEMES = ["system", "light", "dark"];

export function credentials() {
  return sessionStorage.getItem(CREDENTIALS) ?? "";
}

/** Keep an API key or a bearer token until the tab is closed; an empty text forgets it. */
export function keepCredentials(text) {
  if (text) sessionStorage.setItem(CREDENTIALS, text);
  else sessionStorage.removeItem(CREDENTIALS);
}

export function theme() {
  const chosen = localStorage.getItem(THEME);
  return THEMES.includes(chosen) ? chosen : "system";
}

export function chooseTheme(name) {
  localStorage.setItem(THEME, name);
  document.documentElement.dataset.theme = name;
}
