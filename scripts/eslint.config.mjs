// SPDX-License-Identifier: Apache-2.0
// For the scripts of the page in Airflow's UI: they run in a browser as they are, without a build.

const browser = ["AbortController", "ResizeObserver", "URL", "URLSearchParams", "clearInterval", "clearTimeout", "document", "fetch", "globalThis", "localStorage", "setInterval", "setTimeout"];

export default [
  {
    files: ["**/*.js", "**/*.mjs"],
    languageOptions: {
      ecmaVersion: 2022,
      sourceType: "module",
      globals: Object.fromEntries(browser.map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "array-callback-return": "error",
      "consistent-return": "error",
      "eqeqeq": "error",
      "no-cond-assign": "error",
      "no-const-assign": "error",
      "no-dupe-args": "error",
      "no-dupe-keys": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-undef": "error",
      "no-unreachable": "error",
      "no-unused-vars": "error",
      "no-use-before-define": ["error", { functions: false, variables: false }],
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  {
    // Texts of others are never HTML.
    files: ["**/static/*.js"],
    rules: {
      "no-restricted-syntax": ["error",
        { selector: "Property[key.name='dangerouslySetInnerHTML']", message: "Texts of others are shown as text" },
        { selector: "MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML)$/]", message: "Texts of others are shown as text" }],
    },
  },
];
