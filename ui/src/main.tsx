// The general rules come before those of pages.
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/controls.css";
import "./styles/pictures.css";
import { render } from "preact";
import { App } from "./shell/app";
import { applyTheme } from "./colour/theme";
import { followHistory } from "./router/location";

applyTheme();
followHistory();
render(<App />, document.getElementById("app") as HTMLElement);
